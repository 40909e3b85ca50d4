"""The calibration map: what it promises, measured on frames it has not seen."""

import json

import numpy as np
import pytest

from alloop.committee.assess import assess, assess_left_out
from alloop.committee.calibration import CalibrationMap, fit_calibration
from alloop.committee.evaluation import EvaluationArrays
from alloop.committee.metrics import gaussian_multiplier
from alloop.errors import InputError

ATOMS = 9
OVERCONFIDENCE = 3.0
WORLDS = {
    # spread of ln(error scale) between frames and between atoms; dimension of the errors of a frame, None: all components free
    "gaussian": (0.0, 0.0, None),
    "heavy tails": (0.4, 0.4, None),
    "heavy tails, four errors a frame": (0.4, 0.4, 4),
}


def draw(generator, frames, world):
    """Frames of correlated, heavy-tailed errors, with sigmas that are OVERCONFIDENCE times too small."""
    frame_spread, atom_spread, rank = WORLDS[world]
    sigmas = np.exp(generator.normal(-3, 0.5, (frames, ATOMS, 1))) * np.ones((1, 1, 3))
    errors = generator.standard_normal((frames, ATOMS, 3))
    if rank:
        modes = np.random.default_rng(7).standard_normal((rank, ATOMS * 3))
        modes /= np.linalg.norm(modes, axis=0)
        shared = (generator.standard_normal((frames, rank)) @ modes).reshape(errors.shape)
        errors = np.sqrt(0.8) * shared + np.sqrt(0.2) * errors
    errors *= np.exp(frame_spread * generator.standard_normal((frames, 1, 1)))
    errors *= np.exp(atom_spread * generator.standard_normal((frames, ATOMS, 1)))
    energy_sigmas = np.exp(generator.normal(-3, 0.3, frames))
    energy_errors = energy_sigmas * generator.standard_t(5, frames)
    return make(errors * sigmas, sigmas / OVERCONFIDENCE, energy_errors, energy_sigmas / OVERCONFIDENCE)


def make(errors, sigmas, energy_errors, energy_sigmas):
    """Evaluation arrays with these errors [S, A, 3] and sigmas, a quarter of the variance aleatoric."""
    frames, atoms = errors.shape[:2]
    aleatoric = 0.25 * np.square(sigmas[:, :, 0]).ravel()
    return EvaluationArrays(
        structure_ids=np.array([f"{index:032x}" for index in range(frames)]),
        atoms=np.full(frames, atoms),
        numbers=np.full(frames * atoms, 6),
        energy_true=np.zeros(frames),
        energy_predicted=energy_errors,
        energy_aleatoric_var=0.5 * np.square(energy_sigmas),
        energy_epistemic_var=0.5 * np.square(energy_sigmas),
        forces_true=np.zeros((frames * atoms, 3)),
        forces_predicted=errors.reshape(-1, 3),
        force_aleatoric_var=aleatoric,
        force_epistemic_var=np.square(sigmas.reshape(-1, 3)) - aleatoric[:, None],
    )


def coverages(arrays, fitted):
    sigmas = fitted.calibrated_force_sigma(arrays.force_aleatoric_var, arrays.force_epistemic_var)
    energy = fitted.calibrated_energy_sigma(arrays.energy_aleatoric_var, arrays.energy_epistemic_var)
    force_95, energy_95 = fitted.interval(0.95)
    return (
        np.mean(np.abs(arrays.force_errors) <= force_95 * sigmas),
        np.mean(np.abs(arrays.force_errors) <= fitted.interval(0.68)[0] * sigmas),
        np.mean(np.abs(arrays.energy_errors) <= energy_95 * energy),
        np.mean(np.abs(arrays.force_errors) <= gaussian_multiplier(0.95) * sigmas),
    )


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("frames", "least_inside"), [(10, 0.75), (20, 0.90), (40, 0.97)])
def test_coverage_of_new_frames_over_200_calibration_sets(world, frames, least_inside):
    """On the average 95 %, and in most campaigns between the 90 and 98 % that are promised."""
    new = draw(np.random.default_rng(1), 1000, world)
    seeds = range(100, 300)
    seen = np.array([coverages(new, fit_calibration(draw(np.random.default_rng(s), frames, world))) for s in seeds])
    mean_95, mean_68, mean_energy, _ = seen.mean(axis=0)
    inside = np.mean((seen[:, 0] >= 0.90) & (seen[:, 0] <= 0.98))
    assert mean_95 == pytest.approx(0.95, abs=0.01)
    assert mean_68 == pytest.approx(0.68, abs=0.02)
    assert mean_energy == pytest.approx(0.95, abs=0.02)
    assert inside >= least_inside


def test_heavy_tails_need_more_than_the_gaussian_multiplier():
    frames = draw(np.random.default_rng(0), 1000, "heavy tails")
    fitted = fit_calibration(frames)
    assert fitted.force_quantile_95 > 1.05 * gaussian_multiplier(0.95)
    assert coverages(frames, fitted)[3] < 0.945


def test_scale_is_the_root_mean_square_score():
    fitted = fit_calibration(draw(np.random.default_rng(0), 1000, "gaussian"))
    assert fitted.force_scale == pytest.approx(OVERCONFIDENCE, rel=0.02)
    assert fitted.force_quantile_95 == pytest.approx(gaussian_multiplier(0.95), rel=0.02)
    assert fitted.frames == 1000


def test_scale_changes_with_the_unit_of_sigma_and_the_interval_does_not():
    arrays = draw(np.random.default_rng(4), 15, "heavy tails")
    wider = make(
        arrays.force_errors.reshape(15, ATOMS, 3),
        10 * arrays.force_sigmas.reshape(15, ATOMS, 3),
        arrays.energy_errors,
        10 * arrays.energy_sigmas,
    )
    first, second = fit_calibration(arrays), fit_calibration(wider)
    assert second.force_scale == pytest.approx(first.force_scale / 10)
    assert second.energy_scale == pytest.approx(first.energy_scale / 10)
    assert second.interval(0.95) == pytest.approx(first.interval(0.95))


def test_order_of_frames_does_not_matter():
    arrays = draw(np.random.default_rng(4), 12, "heavy tails")
    backwards = make(
        arrays.force_errors.reshape(12, ATOMS, 3)[::-1],
        arrays.force_sigmas.reshape(12, ATOMS, 3)[::-1],
        arrays.energy_errors[::-1],
        arrays.energy_sigmas[::-1],
    )
    assert fit_calibration(backwards).to_json() == pytest.approx(fit_calibration(arrays).to_json())


@pytest.mark.parametrize("frames", [1, 2, 4, 5])
def test_fewer_frames_give_wider_intervals_never_none(frames):
    fitted = [fit_calibration(draw(np.random.default_rng(s), frames, "gaussian")) for s in range(50)]
    assert np.median([each.energy_quantile_95 for each in fitted]) > gaussian_multiplier(0.95)
    assert all(np.isfinite(list(each.to_json().values())).all() for each in fitted)


def test_no_frames_give_the_identity():
    assert fit_calibration(None) == CalibrationMap.identity()
    assert CalibrationMap.identity().interval(0.95)[0] == pytest.approx(1.959964)


def test_perfect_predictions_do_not_divide_by_zero():
    fitted = fit_calibration(make(np.zeros((6, 2, 3)), np.ones((6, 2, 3)), np.zeros(6), np.ones(6)))
    assert np.isfinite(list(fitted.to_json().values())).all()


def test_a_sigma_of_zero_is_refused():
    sigmas = np.ones((6, 2, 3))
    sigmas[3, 1] = 0.0
    with pytest.raises(InputError, match="sigma above 0"):
        fit_calibration(make(np.ones((6, 2, 3)), sigmas, np.zeros(6), np.ones(6)))


def test_only_the_calibrated_levels_are_answered():
    with pytest.raises(InputError, match=r"0\.68 or 0\.95"):
        CalibrationMap.identity().interval(0.9)


def test_map_survives_json():
    fitted = fit_calibration(draw(np.random.default_rng(0), 8, "heavy tails"))
    assert CalibrationMap.model_validate(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_assess_agrees_with_the_map_and_the_seed():
    calibration, new = (draw(np.random.default_rng(s), 60, "heavy tails") for s in (1, 2))
    fitted = fit_calibration(calibration)
    found = assess(new, fitted, seed=5)
    assert found == assess(new, fitted, seed=5)
    assert found.coverage_95 == pytest.approx(coverages(new, fitted)[0])
    assert found.force_rmse == pytest.approx(np.sqrt(np.mean(np.square(new.force_errors))))
    assert found.energy_rmse_per_atom == pytest.approx(np.sqrt(np.mean(np.square(new.energy_errors))) / ATOMS)
    low, high = found.coverage_95_interval
    assert low < found.coverage_95 < high
    assert 0.85 < found.z_std < 1.15
    assert assess(new, CalibrationMap.identity(), seed=5).z_std == pytest.approx(found.z_std * fitted.force_scale)


def test_assess_of_a_single_frame_claims_no_interval():
    found = assess(draw(np.random.default_rng(0), 1, "gaussian"), CalibrationMap.identity(), seed=1)
    assert found.coverage_95_interval == (0.0, 1.0)
    assert found.force_rmse_interval is None


def test_frames_that_calibrate_are_measured_by_the_map_of_the_others():
    """So they are as far off as fresh frames are; where the map saw them, the z-score is one because the fit made it one."""
    fresh, left_out, own = [], [], []
    for seed in range(60):
        arrays, new = (draw(np.random.default_rng([seed, part]), 8, "heavy tails") for part in range(2))
        fitted = fit_calibration(arrays)
        fresh.append(assess(new, fitted, seed=0, resamples=1))
        left_out.append(assess_left_out(arrays, seed=0, resamples=1))
        own.append(assess(arrays, fitted, seed=0, resamples=1))
    for of in (lambda each: each.coverage_95, lambda each: each.z_std):
        seen, expected = ([of(each) for each in kind] for kind in (left_out, fresh))
        assert abs(np.mean(seen) - np.mean(expected)) < 4 * np.std(expected) / np.sqrt(60)
    assert np.std([each.z_std for each in own]) < 0.01
    assert np.mean([each.z_std for each in left_out]) > 1.02


@pytest.mark.parametrize("frames", [1, 2, 60])
def test_leaving_out_takes_any_number_of_frames(frames):
    measured = assess_left_out(draw(np.random.default_rng(3), frames, "gaussian"), seed=0, resamples=10)
    assert measured.frames == frames
    assert 0 <= measured.coverage_95 <= 1
