"""`Probe`: what committee dynamics found out about the model, as a value without tensors."""

from pydantic import BaseModel, ConfigDict


class Probe(BaseModel):
    """Committee dynamics from fixed starts and seeds, made anew each round (method 5.5).

    `sigmas_ev_per_angstrom`: calibrated epistemic force sigma of each frame (root mean square over components), one list a
    trajectory, in the same order each round; `stable` says per trajectory whether it ended in one piece. A frame without a
    finite sigma is left out, and its trajectory is not stable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sigmas_ev_per_angstrom: tuple[tuple[float, ...], ...]
    total_sigmas_ev_per_angstrom: tuple[tuple[float, ...], ...]
    stable: tuple[bool, ...]
