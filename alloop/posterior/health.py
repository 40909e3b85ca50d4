"""`SamplerHealth`: what a method says of the members it made, as a value without tensors."""

from pydantic import BaseModel, ConfigDict

NOT_SAMPLED = {
    "ensemble": "a deep ensemble, networks trained from different starts",
    "dropout": "one network behind dropout masks",
    "last_layer": "one trained network with draws of its last layer only",
}


class SamplerHealth(BaseModel):
    """What the diagnostics say of the members; `converged` is their honest verdict, not a wish.

    R-hat and effective sample sizes `ess_*` are rank-normalised (Vehtari et al. 2021); of forces the 95 % quantile, and the
    median, over components. `kinetic_temperature` is the mean over all parameters, `kinetic_by_group` over those of a group.
    `gradient_noise_inflation` and `step_bias_inflation` (stiffest direction) are what method 2.4 predicts from what was
    measured where sampling started, and `later_*` half-way through it. `drift` of the log posterior is in standard errors.
    None: not known.

    All of that is of chains, so of `method` sghmc. The other methods have no chains: their figures are None and `converged` is
    False, because nothing has shown it. They say how many labels were held out to stop early, and at which step each network
    was kept; a network without a finite likelihood counts as quarantined.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "sghmc"
    r_hat_log_posterior: float | None
    r_hat_forces: float | None
    kinetic_temperature: float | None
    gradient_evaluations: int
    converged: bool
    ess_log_posterior: float | None = None
    ess_forces: float | None = None
    drift: float | None = None
    on_plateau: bool | None = None
    kinetic_by_group: dict[str, float] = {}
    gradient_noise_inflation: float | None = None
    step_bias_inflation: float | None = None
    later_gradient_noise_inflation: float | None = None
    later_step_bias_inflation: float | None = None
    step_size: float | None = None
    rejected_steps: int = 0
    quarantined_chains: int = 0
    held_out_labels: int | None = None
    kept_at_steps: tuple[int, ...] = ()

    @property
    def has_chains(self) -> bool:
        """Whether there are chains that can converge or not."""
        return self.method not in NOT_SAMPLED

    @property
    def verdict(self) -> str:
        """Whether the chains converged: yes, no, or a dash where there are none."""
        return ("yes" if self.converged else "no") if self.has_chains else "–"

    @property
    def described(self) -> str:
        """What the members are, in a few words."""
        return NOT_SAMPLED.get(self.method, "posterior samples, one from each independent chain")

    @property
    def sentence(self) -> str:
        """The verdict for people, in one line."""
        if self.has_chains:
            return (
                f"R-hat {shown(self.r_hat_forces, 2)} (forces), {shown(self.r_hat_log_posterior, 2)} (log posterior);"
                f" T_kin {shown(self.kinetic_temperature, 3)}; converged: {self.verdict}"
            )
        kept = ", ".join(map(str, self.kept_at_steps))
        return (
            f"{self.described}; kept at step {kept} by {self.held_out_labels} held-out labels;"
            " no chains, so neither R-hat nor convergence"
        )


def shown(value: float | None, digits: int) -> str:
    """A figure, or a dash where it means nothing.

    >>> shown(1.234, 2), shown(None, 2)
    ('1.23', '–')
    """
    return "–" if value is None else f"{value:.{digits}f}"
