"""`SamplerHealth`: what the diagnostics say of the chains, as a value without tensors."""

from pydantic import BaseModel, ConfigDict


class SamplerHealth(BaseModel):
    """What the diagnostics say of the chains; `converged` is their honest verdict, not a wish.

    R-hat and effective sample sizes `ess_*` are rank-normalised (Vehtari et al. 2021); of forces the 95 % quantile, and the
    median, over components. `kinetic_temperature` is the mean over all parameters, `kinetic_by_group` over those of a group.
    `gradient_noise_inflation` and `step_bias_inflation` (stiffest direction) are what method 2.4 predicts from what was
    measured where sampling started. `drift` of the log posterior is in standard errors. None: not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    r_hat_log_posterior: float
    r_hat_forces: float
    kinetic_temperature: float
    gradient_evaluations: int
    converged: bool
    ess_log_posterior: float | None = None
    ess_forces: float | None = None
    drift: float | None = None
    on_plateau: bool | None = None
    kinetic_by_group: dict[str, float] = {}
    gradient_noise_inflation: float | None = None
    step_bias_inflation: float | None = None
    step_size: float | None = None
    rejected_steps: int = 0
    quarantined_chains: int = 0
