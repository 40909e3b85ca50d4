"""Plateau: which round is the best in hindsight, and where the rule would have stopped."""

import numpy as np
import pytest

from alloop.campaign.state import RoundReport
from alloop.committee.metrics import Metrics
from alloop.posterior.health import SamplerHealth
from alloop.proposals.probe_report import Probe
from benchmarks.evidence import plateau
from benchmarks.evidence.study import Results

HEALTH = SamplerHealth(
    r_hat_log_posterior=1.01, r_hat_forces=1.3, kinetic_temperature=1.0, gradient_evaluations=1000, converged=True
)


def report(round: int, rmse: float, sigma: float) -> RoundReport:
    """Eight labels a round; the sigmas of the probe's eight trajectories differ by a hundredth."""
    noise = np.random.default_rng(round).normal(0, 0.01, (8, 20))
    sigmas = tuple(tuple(row) for row in (sigma * np.exp(noise)).tolist())
    return RoundReport(
        round=round,
        labels_train=6 * round,
        labels_calibration=2 * round,
        labels_failed=0,
        training_set=f"{round:032x}",
        calibration_scale=1.0,
        probe=Probe(sigmas_ev_per_angstrom=sigmas, total_sigmas_ev_per_angstrom=sigmas, stable=(True,) * 8),
        health=HEALTH,
        evaluation=Metrics.model_construct(force_rmse=rmse),
        held_out=None,
        core_seconds={},
    )


def campaign(*figures: tuple[float, float]) -> list[RoundReport]:
    return [report(round, rmse, sigma) for round, (rmse, sigma) in enumerate(figures, start=1)]


def test_the_best_round_is_the_first_that_later_ones_undercut_by_no_progress():
    found = plateau.best_round(campaign((0.4, 1), (0.2, 1), (0.103, 1), (0.1, 1), (0.11, 1)))
    assert (found.labels, found.rmse) == (24, 0.103)
    assert plateau.best_round(campaign((0.4, 1), (0.2, 1), (0.1, 1))).labels == 24


def test_the_rule_stops_after_two_rounds_without_progress_or_with_the_budget():
    falling = [(0.4, 0.4), (0.3, 0.2), (0.2, 0.1)]
    flat = campaign(*falling, (0.2, 0.1), (0.2, 0.1), (0.2, 0.1), (0.2, 0.1))
    assert plateau.stopped_at(flat, seed=1).labels == 40
    assert plateau.stopped_at(campaign(*falling), seed=1).labels == 24


@pytest.mark.parametrize(("ratios", "met"), [((1.0, 0.86, 1.14), True), ((1.0, 0.84), False), ((1.0, 1.2), False)])
def test_every_campaign_has_to_stop_near_its_best_round(ratios, met):
    done = Results(tuple(({"system": "water", "seed": seed}, {"ratio": ratio}) for seed, ratio in enumerate(ratios)))
    (row,) = plateau.rows(done, [])
    assert row.met is met
