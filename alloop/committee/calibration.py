"""The calibration map: from what the committee says of its error to what its error was on labels it never saw.

Fitted on calibration frames, which are drawn at random (never by score) and never trained on. A frame is the unit, because
the components of a frame share a geometry.

Scale: the Gaussian maximum likelihood s = sqrt(mean (error / sigma)^2), every frame counting once (method 5.6, option 1). It
makes sigma an honest root mean square error, and multiplies the epistemic part alone just as the total.

Intervals: errors over sigma have heavier tails than a Gaussian, so 1.96 sigma covers too little. The 68 and 95 % multipliers
are quantiles of |error| / sigma (option 3), corrected for the few frames they come from:

- many scores a frame (forces): the quantile of the pooled scores, times the factor that makes the coverage of each frame by the
  quantile of all the others right on the average (leave one frame out; the idea of the jackknife+ of Barber et al. 2021);
- one score a frame (energies): the order statistic at rank (n + 1) level, interpolated: split conformal prediction (Vovk et al.
  2005; Angelopoulos and Bates 2021), where n >= level / (1 - level); 19 frames for 95 %;
- fewer frames than these rules need: the predictive Student-t quantile s t_nu((1 + level) / 2). With one Gaussian score a
  frame nu = n would be exact; a kurtosis k leaves 2 n / (k - 1) degrees of freedom, and k = 5 is allowed for: nu = n / 2.

What is promised is the average over calibration sets, and only for frames exchangeable with the calibration frames: drawn from
the same distribution, by the same process. It fails for frames from elsewhere (another temperature, attacks, structures
chosen *because* sigma was large), for a model refitted since, and it says nothing of one particular kind of frame or atom.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from alloop.committee.evaluation import Array, EvaluationArrays, by_component
from alloop.committee.metrics import gaussian_multiplier
from alloop.errors import InputError

LEVELS = (0.68, 0.95)
LEAST_FRAMES_TO_LEAVE_ONE_OUT = 5
MOST_FOLDS = 50  # with more frames than that, several are left out at a time: the correction is small then
TINY = 1e-12


class CalibrationMap(BaseModel):
    """Scales of the standard deviations, and half widths of intervals in scaled sigmas. `frames` 0: not calibrated."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    frames: int = Field(ge=0)
    force_scale: float = Field(gt=0)
    energy_scale: float = Field(gt=0)
    force_quantile_68: float = Field(gt=0)
    force_quantile_95: float = Field(gt=0)
    energy_quantile_68: float = Field(gt=0)
    energy_quantile_95: float = Field(gt=0)

    @classmethod
    def identity(cls) -> "CalibrationMap":
        """The committee taken at its word, with Gaussian intervals."""
        low, high = (gaussian_multiplier(level) for level in LEVELS)
        return cls(
            frames=0,
            force_scale=1.0,
            energy_scale=1.0,
            force_quantile_68=low,
            force_quantile_95=high,
            energy_quantile_68=low,
            energy_quantile_95=high,
        )

    def calibrated_force_sigma(self, aleatoric_var: Array, epistemic_var: Array) -> Array:
        """Total standard deviation [A, 3] in eV/Å from variances [A] (one an atom) or [A, 3], and [A, 3]."""
        return self.force_scale * np.sqrt(by_component(np.asarray(aleatoric_var)) + epistemic_var)

    def calibrated_epistemic_force_sigma(self, epistemic_var: Array) -> Array:
        """What labels can still teach: s sqrt(epistemic variance) [A, 3], eV/Å."""
        return self.force_scale * np.sqrt(epistemic_var)

    def calibrated_energy_sigma(self, aleatoric_var: Array, epistemic_var: Array) -> Array:
        """Total standard deviation [S] in eV from variances [S]."""
        return self.energy_scale * np.sqrt(np.asarray(aleatoric_var) + epistemic_var)

    def interval(self, level: float) -> tuple[float, float]:
        """Half widths of the interval at 0.68 or 0.95, in calibrated sigmas: of a force component, of an energy.

        Raises `InputError` for other levels: only these two were calibrated.
        """
        if level not in LEVELS:
            raise InputError("an interval of level 0.68 or 0.95", f"{level}", "ask for one of the two that were calibrated")
        if level == LEVELS[0]:
            return self.force_quantile_68, self.energy_quantile_68
        return self.force_quantile_95, self.energy_quantile_95

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping that `CalibrationMap.model_validate` reads."""
        return self.model_dump(mode="json")


def fit_calibration(arrays: EvaluationArrays | None) -> CalibrationMap:
    """The map for these calibration frames; `None` (no frames) gives the identity.

    Raises `InputError` where a predicted sigma is zero: nothing can be scaled then.
    """
    if arrays is None:
        return CalibrationMap.identity()
    forces = [_scores(errors, sigmas) for errors, sigmas in _frame_pairs(arrays)]
    energies = [_scores(arrays.energy_errors[i : i + 1], arrays.energy_sigmas[i : i + 1]) for i in range(len(arrays))]
    force_scale, energy_scale = _scale(forces), _scale(energies)
    force_68, force_95 = (_leave_one_out_quantile(forces, level) / force_scale for level in LEVELS)
    energy_68, energy_95 = (_conformal_quantile(energies, level) / energy_scale for level in LEVELS)
    return CalibrationMap(
        frames=len(arrays),
        force_scale=force_scale,
        energy_scale=energy_scale,
        force_quantile_68=force_68,
        force_quantile_95=force_95,
        energy_quantile_68=energy_68,
        energy_quantile_95=energy_95,
    )


def _frame_pairs(arrays: EvaluationArrays) -> list[tuple[Array, Array]]:
    return list(zip(arrays.by_frame(arrays.force_errors), arrays.by_frame(arrays.force_sigmas), strict=True))


def _scores(errors: Array, sigmas: Array) -> Array:
    if not (sigmas > 0).all():
        raise InputError("a predicted sigma above 0 for every energy and force", f"{sigmas.min():g}", "look at the noise heads")
    return np.abs(np.ravel(errors / sigmas))


def _scale(frames: Sequence[Array]) -> float:
    """sqrt of the mean over frames of the mean square score; tiny where every error is exactly zero."""
    return float(max(np.sqrt(np.mean([np.mean(np.square(scores)) for scores in frames])), TINY))


def _student_quantile(frames: Sequence[Array], level: float) -> float:
    return _scale(frames) * float(stats.t.ppf((1 + level) / 2, max(len(frames) / 2, 1)))


def _leave_one_out_quantile(frames: Sequence[Array], level: float) -> float:
    """The pooled quantile, inflated until frames are covered by the quantile of the others as often as promised."""
    if len(frames) < LEAST_FRAMES_TO_LEAVE_ONE_OUT:
        return _student_quantile(frames, level)
    values = np.concatenate(frames)
    weights = np.concatenate([np.full(len(scores), 1 / len(scores)) for scores in frames])
    fold = np.repeat(np.arange(len(frames)) % MOST_FOLDS, [len(scores) for scores in frames])
    relative = np.empty_like(values)
    for left_out in range(min(len(frames), MOST_FOLDS)):
        out = fold == left_out
        relative[out] = values[out] / max(_weighted_quantile(values[~out], weights[~out], level), TINY)
    factor = max(_weighted_quantile(relative, weights, level), 1.0)
    return factor * max(_weighted_quantile(values, weights, level), TINY)


def _conformal_quantile(frames: Sequence[Array], level: float) -> float:
    """One score a frame: the interpolated order statistic of rank (n + 1) level, Student-t where there is no such rank."""
    if (len(frames) + 1) * level > len(frames):
        return _student_quantile(frames, level)
    return max(float(np.quantile(np.concatenate(frames), level, method="weibull")), TINY)


def _weighted_quantile(values: Array, weights: Array, level: float) -> float:
    """Quantile of weighted values, interpolated between the midpoints of their shares."""
    order = np.argsort(values, kind="stable")
    shares = np.cumsum(weights[order]) - 0.5 * weights[order]
    return float(np.interp(level, shares / np.sum(weights), values[order]))
