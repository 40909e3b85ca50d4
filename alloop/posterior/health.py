"""`SamplerHealth`: what the diagnostics say of the chains, as a value without tensors."""

from pydantic import BaseModel, ConfigDict


class SamplerHealth(BaseModel):
    """What the diagnostics say of the chains; `converged` is their honest verdict, not a wish."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r_hat_log_posterior: float
    r_hat_forces: float
    kinetic_temperature: float
    gradient_evaluations: int
    converged: bool
