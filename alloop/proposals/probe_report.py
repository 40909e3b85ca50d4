"""`Probe`: what committee dynamics found out about the model, as a value without tensors."""

from pydantic import BaseModel, ConfigDict


class Probe(BaseModel):
    """Committee dynamics from fixed starts and seeds, made anew each round (method 5.5).

    `sigmas_ev_per_angstrom`: calibrated epistemic force sigma of each frame (root mean square over components), one list a
    trajectory, in the same order each round; `stable` says per trajectory whether it ended in one piece, and `systems` what
    moved. A frame without a finite sigma is left out, and its trajectory is not stable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sigmas_ev_per_angstrom: tuple[tuple[float, ...], ...]
    total_sigmas_ev_per_angstrom: tuple[tuple[float, ...], ...]
    stable: tuple[bool, ...]
    systems: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The systems that were probed, each once; one without a name where they were not told apart."""
        return tuple(dict.fromkeys(self.systems)) or ("",)

    def of(self, system: str) -> "Probe":
        """The trajectories of one system."""
        if not self.systems:
            return self
        places = [index for index, name in enumerate(self.systems) if name == system]
        return Probe(
            sigmas_ev_per_angstrom=tuple(self.sigmas_ev_per_angstrom[index] for index in places),
            total_sigmas_ev_per_angstrom=tuple(self.total_sigmas_ev_per_angstrom[index] for index in places),
            stable=tuple(self.stable[index] for index in places),
            systems=tuple(system for _ in places),
        )
