"""Stop or go on: each clause, each reason, and the words."""

import re

import numpy as np
import pytest

from alloop.campaign import plateau
from alloop.campaign.budget import cap_reached, labels_allowed
from alloop.campaign.decide import clopper_pearson_lower, decide
from alloop.campaign.plateau import change, probe_q95
from alloop.campaign.state import RoundReport, Spending, StopReason
from alloop.posterior.health import SamplerHealth
from alloop.proposals.probe_report import Probe
from alloop.sections import StopConfig


def made_probe(sigmas, stable) -> Probe:
    """A probe whose whole uncertainty is epistemic."""
    return Probe(sigmas_ev_per_angstrom=sigmas, total_sigmas_ev_per_angstrom=sigmas, stable=stable)


STOP = StopConfig(force_tolerance_ev_per_angstrom=0.05, max_rounds=10, max_labels=500, max_core_hours=10.0)
NOTHING_SPENT = Spending(rounds=0, labels=0, core_hours=0.0)
TRAJECTORIES = 16


def probe(level, *, seed=0, stable=TRAJECTORIES, noise=0.02):
    """16 trajectories of 20 frames about `level` eV/Å; the same seed has the same ups and downs."""
    generator = np.random.default_rng(seed)
    sigmas = level * np.exp(0.3 * np.random.default_rng(0).standard_normal((TRAJECTORIES, 20)))
    sigmas *= np.exp(noise * generator.standard_normal(sigmas.shape))
    return made_probe(
        sigmas=tuple(tuple(row) for row in sigmas.tolist()),
        stable=(True,) * stable + (False,) * (TRAJECTORIES - stable),
    )


def report(number, made, *, converged=True):
    health = SamplerHealth(
        r_hat_log_posterior=1.01, r_hat_forces=1.3, kinetic_temperature=1.0, gradient_evaluations=1000, converged=converged
    )
    return RoundReport(
        round=number,
        labels_train=20 * number,
        labels_calibration=8 * number,
        labels_failed=0,
        training_set=f"{number:032x}",
        calibration_scale=1.0,
        probe=made,
        health=health,
        evaluation=None,
        held_out=None,
        core_seconds={"sample": 30.0},
    )


def history(*levels, stable=TRAJECTORIES):
    return [report(n, probe(level, seed=n, stable=stable)) for n, level in enumerate(levels, start=1)]


def test_goes_on_while_the_uncertainty_falls():
    decision = decide(history(0.4, 0.2, 0.1), STOP, NOTHING_SPENT, seed=1)
    assert decision.stop is None
    assert decision.figures["q95_decrease"] == pytest.approx(0.5, abs=0.03)
    assert decision.figures["flat_rounds"] == 0
    assert re.search(r"(49|50|51) % lower than a round before", decision.sentence)


def test_reached_when_accurate_and_stable():
    decision = decide(history(0.4, 0.02), STOP, NOTHING_SPENT, seed=1)
    assert decision.stop is StopReason.REACHED
    assert "16 of 16 probe trajectories ended in one piece" in decision.sentence
    assert decision.figures["accurate_fraction"] == 1.0


def test_accurate_but_unstable_goes_on():
    decision = decide(history(0.4, 0.02, stable=12), STOP, NOTHING_SPENT, seed=1)
    assert decision.stop is None
    assert decision.figures["stable_lower_bound"] < 0.8


def test_plateau_above_the_target_says_so():
    decision = decide(history(0.4, 0.2, 0.2, 0.2), STOP, NOTHING_SPENT, seed=1)
    assert decision.stop is StopReason.PLATEAU
    assert "above the target 50 meV/Å; likely cause: model size, label noise, proposal strategy" in decision.sentence
    assert decision.figures["q95_decrease_upper_bound"] < 0.05


def test_one_flat_round_is_not_a_plateau():
    assert decide(history(0.4, 0.2, 0.2), STOP, NOTHING_SPENT, seed=1).stop is None


def test_a_noisy_fall_is_not_flat():
    """8 % down every round is progress, even though chance could make it look like 3 %."""
    assert decide(history(0.4, 0.368, 0.339, 0.312), STOP, NOTHING_SPENT, seed=1).stop is None


@pytest.mark.parametrize(
    ("spending", "reason"),
    [
        (Spending(rounds=10, labels=0, core_hours=0.0), StopReason.CAP_ROUNDS),
        (Spending(rounds=1, labels=500, core_hours=0.0), StopReason.CAP_LABELS),
        (Spending(rounds=1, labels=1, core_hours=10.0), StopReason.CAP_CORE_HOURS),
    ],
)
def test_caps_name_themselves(spending, reason):
    decision = decide(history(0.4, 0.2), STOP, spending, seed=1)
    assert decision.stop is reason
    assert reason.name.split("_", 1)[1].lower().replace("_", "-") in decision.sentence
    assert decide([], STOP, spending, seed=1).stop is reason


def test_a_cap_of_one_is_in_the_singular():
    once = STOP.model_copy(update={"max_rounds": 1})
    assert "the cap of 1 round came" in decide(history(0.4), once, NOTHING_SPENT, seed=1).sentence


def test_reports_count_as_rounds_even_where_spending_lags_behind():
    falling = history(*(0.9**n for n in range(10)))
    assert decide(falling, STOP, NOTHING_SPENT, seed=1).stop is StopReason.CAP_ROUNDS
    assert "a larger `stop.max_rounds` lets it go on" in decide(falling, STOP, NOTHING_SPENT, seed=1).sentence


def test_reached_at_the_cap_is_reached():
    spending = Spending(rounds=10, labels=500, core_hours=10.0)
    assert decide(history(0.4, 0.02), STOP, spending, seed=1).stop is StopReason.REACHED


def test_unconverged_chains_are_mentioned_where_it_matters():
    reports = [report(1, probe(0.4)), report(2, probe(0.02), converged=False)]
    assert "had not converged (R-hat of forces 1.30)" in decide(reports, STOP, NOTHING_SPENT, seed=1).sentence


def test_members_that_are_not_sampled_are_no_posterior():
    reports = [report(1, probe(0.4)), report(2, probe(0.02), converged=False)]
    nothing = {"r_hat_forces": None, "r_hat_log_posterior": None, "kinetic_temperature": None}
    health = reports[1].health.model_copy(update={"method": "ensemble"} | nothing)
    sentence = decide([reports[0], reports[1].model_copy(update={"health": health})], STOP, NOTHING_SPENT, seed=1).sentence
    assert "not that of a posterior: a deep ensemble" in sentence
    assert "R-hat" not in sentence


def test_a_probe_without_frames_stops_nothing():
    empty = made_probe(sigmas=((), ()), stable=(False, False))
    decision = decide([report(1, empty), report(2, empty), report(3, empty)], STOP, NOTHING_SPENT, seed=1)
    assert decision.stop is None
    assert "unknown" in decision.sentence
    assert all(np.isfinite(list(decision.figures.values())))


def test_clopper_pearson_against_its_defining_equation():
    # all of n: level^(1/n); and P(X >= k | bound) = 5 %
    assert clopper_pearson_lower(16, 16) == pytest.approx(0.05 ** (1 / 16))
    assert clopper_pearson_lower(0, 16) == 0.0
    bound = clopper_pearson_lower(14, 16)
    tail = sum(np.prod([(16 - i) / (i + 1) for i in range(k)]) * bound**k * (1 - bound) ** (16 - k) for k in range(14, 17))
    assert tail == pytest.approx(0.05)


def test_q95_is_over_frames_of_all_trajectories():
    made = made_probe(sigmas=(tuple(range(1, 51)), tuple(range(51, 101)), ()), stable=(True, True, False))
    assert probe_q95(made) == pytest.approx(np.quantile(np.arange(1, 101), 0.95))


def test_bootstrap_quantiles_are_those_of_the_copies():
    generator = np.random.default_rng(0)
    trajectories = [generator.random(size) for size in (1, 7, 30, 4)]
    times = generator.multinomial(4, np.full(4, 0.25), size=600)
    expected = [
        np.quantile(np.concatenate([np.tile(t, n) for t, n in zip(trajectories, row, strict=True)]), 0.95) for row in times
    ]
    assert np.allclose(plateau._pooled_q95(trajectories, times), expected, rtol=1e-14)


def test_pairing_cancels_what_both_rounds_share():
    """The same trajectories scaled by 0.8 are a certain fall of 20 %; others of that size are not."""
    before, other = probe(0.2, noise=0.0), probe(0.16, seed=5, noise=0.5)
    scaled = made_probe(
        sigmas=tuple(tuple(0.8 * s for s in row) for row in before.sigmas_ev_per_angstrom), stable=before.stable
    )
    paired = change(before, scaled, generator=np.random.default_rng(0))
    unpaired = change(before, other, generator=np.random.default_rng(0))
    assert paired is not None
    assert unpaired is not None
    assert paired.decrease == pytest.approx(0.2)
    assert paired.upper == pytest.approx(0.2)
    assert unpaired.upper > unpaired.decrease + 0.03


def test_upper_bound_is_above_the_true_fall_19_times_in_20():
    inside = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        sigmas = np.exp(0.2 * generator.standard_normal((2, 24, 1)) + 0.3 * generator.standard_normal((2, 24, 40)))
        first, second = (
            made_probe(sigmas=tuple(map(tuple, (scale * each).tolist())), stable=(True,) * 24)
            for scale, each in zip((0.10, 0.08), sigmas, strict=True)
        )
        found = change(first, second, generator=generator)
        assert found is not None
        inside += found.upper >= 0.2
    assert inside >= 88


def test_budget_leaves_what_the_caps_leave():
    assert cap_reached(NOTHING_SPENT, STOP) is None
    assert labels_allowed(20, Spending(rounds=1, labels=490, core_hours=0.0), STOP) == 10
    assert labels_allowed(20, Spending(rounds=1, labels=500, core_hours=0.0), STOP) == 0
    assert labels_allowed(20, Spending(rounds=1, labels=9, core_hours=9.0), STOP, core_hours_per_label=0.1) == 10
    assert labels_allowed(20, Spending(rounds=1, labels=9, core_hours=9.99), STOP, core_hours_per_label=0.1) == 1


def test_a_plateau_that_rises_is_not_called_flat():
    decision = decide(history(0.1, 0.2, 0.4), STOP, NOTHING_SPENT, seed=1)
    assert decision.stop is StopReason.PLATEAU
    assert "but rose to" in decision.sentence
    assert "flat at" not in decision.sentence


def of_systems(**levels):
    """Rounds of several systems; a level (eV/Å) for each round, by the system's name."""
    rounds = []
    for number, row in enumerate(zip(*levels.values(), strict=True), start=1):
        probes = [probe(level, seed=number) for level in row]
        rounds.append(
            report(
                number,
                Probe(
                    sigmas_ev_per_angstrom=tuple(each for made in probes for each in made.sigmas_ev_per_angstrom),
                    total_sigmas_ev_per_angstrom=tuple(each for made in probes for each in made.total_sigmas_ev_per_angstrom),
                    stable=tuple(each for made in probes for each in made.stable),
                    systems=tuple(name for name in levels for _ in range(TRAJECTORIES)),
                ),
            )
        )
    return rounds


def test_each_system_is_finished_by_itself():
    """Water is accurate, its cation still learns: the campaign goes on, for the cation alone."""
    decision = decide(of_systems(water=(0.04, 0.02), cation=(0.8, 0.4)), STOP, NOTHING_SPENT, seed=1)
    assert (decision.stop, decision.finished) == (None, ("water",))
    assert decision.figures["q95_ev_per_angstrom"] > 0.4, "the figures are those of the system that is known least"
    assert "water: Uncertainty" in decision.sentence
    assert "cation: Uncertainty" in decision.sentence


def test_a_campaign_stops_when_all_systems_are_finished():
    both = decide(of_systems(water=(0.04, 0.02), cation=(0.04, 0.02)), STOP, NOTHING_SPENT, seed=1)
    assert (both.stop, both.finished) == (StopReason.REACHED, ("water", "cation"))
    flat = decide(of_systems(water=(0.04, 0.03, 0.02), cation=(0.4, 0.4, 0.4)), STOP, NOTHING_SPENT, seed=1)
    assert (flat.stop, flat.finished) == (StopReason.PLATEAU, ("water", "cation"))
    assert "above the target" in flat.sentence
    spent = Spending(rounds=10, labels=0, core_hours=0.0)
    assert decide(of_systems(water=(0.04, 0.02), cation=(0.8, 0.4)), STOP, spent, seed=1).stop is StopReason.CAP_ROUNDS
