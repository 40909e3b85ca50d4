"""Laws of the stop decision, whatever the numbers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from alloop.campaign.budget import cap_reached, labels_allowed, shrunk_batch
from alloop.campaign.decide import clopper_pearson_lower, decide
from alloop.campaign.state import RoundReport, Spending, StopReason
from alloop.posterior.health import SamplerHealth
from alloop.proposals.probe_report import Probe
from alloop.sections import StopConfig


def made_probe(sigmas, stable) -> Probe:
    """A probe whose whole uncertainty is epistemic."""
    return Probe(sigmas_ev_per_angstrom=sigmas, total_sigmas_ev_per_angstrom=sigmas, stable=stable)


HEALTH = SamplerHealth(
    r_hat_log_posterior=1.0, r_hat_forces=1.0, kinetic_temperature=1.0, gradient_evaluations=1, converged=True
)
CAPS = {StopReason.CAP_ROUNDS, StopReason.CAP_LABELS, StopReason.CAP_CORE_HOURS}
quick = settings(max_examples=15, deadline=None, derandomize=True)

sigma = st.floats(1e-4, 2.0)
probes = st.lists(st.tuples(st.lists(sigma, max_size=6).map(tuple), st.booleans()), min_size=1, max_size=6).map(
    lambda rows: made_probe(sigmas=tuple(row for row, _ in rows), stable=tuple(good for _, good in rows))
)
histories = st.lists(probes, min_size=1, max_size=4).map(lambda made: [report(n, each) for n, each in enumerate(made, 1)])
stops = st.builds(
    StopConfig,
    force_tolerance_ev_per_angstrom=st.floats(0.01, 1.0),
    flat_rounds=st.integers(1, 3),
    flat_decrease=st.floats(0.01, 0.5),
    max_rounds=st.integers(2, 8),
    max_labels=st.integers(1, 100),
    max_core_hours=st.floats(0.1, 10),
)
spendings = st.builds(
    Spending, rounds=st.integers(0, 8), labels=st.integers(0, 120), core_hours=st.floats(0, 12, allow_subnormal=False)
)


def report(number, probe):
    return RoundReport(
        round=number,
        labels_train=1,
        labels_calibration=1,
        labels_failed=0,
        training_set="0" * 32,
        calibration_scale=1.0,
        probe=probe,
        health=HEALTH,
        evaluation=None,
        held_out=None,
        core_seconds={},
    )


@quick
@given(histories, stops, spendings, st.integers(0, 2**31 - 1))
def test_the_same_history_gives_the_same_decision(reports, stop, spending, seed):
    assert decide(reports, stop, spending, seed=seed) == decide(reports, stop, spending, seed=seed)


@quick
@given(histories, stops, spendings)
def test_a_stop_survives_more_rounds_of_the_same(reports, stop, spending):
    """A longer flat history never un-stops, nor does another round of an accurate and stable model, nor more spending."""
    first = decide(reports, stop, spending, seed=1)
    longer = [*reports, reports[-1].model_copy(update={"round": reports[-1].round + 1})]
    later = decide(longer, stop, spending.model_copy(update={"labels": spending.labels + 1}), seed=1)
    if first.stop is not None:
        assert later.stop is not None
    if first.stop in (StopReason.REACHED, StopReason.PLATEAU):
        assert later.stop is first.stop


@quick
@given(probes, stops)
def test_standing_still_ends_in_plateau_or_sooner(probe, stop):
    reports = [report(number, probe) for number in range(1, stop.flat_rounds + 2)]
    decision = decide(reports, stop.model_copy(update={"max_rounds": 100}), Spending(rounds=0, labels=0, core_hours=0), seed=3)
    frames = any(probe.sigmas_ev_per_angstrom)
    assert decision.stop in ((StopReason.REACHED, StopReason.PLATEAU) if frames else (None,))


@quick
@given(histories, stops, spendings)
def test_a_used_up_cap_always_stops(reports, stop, spending):
    decision = decide(reports, stop, spending, seed=1)
    if cap_reached(spending, stop) is not None or reports[-1].round >= stop.max_rounds:
        assert decision.stop is not None
    if decision.stop in CAPS:
        counted = spending.model_copy(update={"rounds": max(spending.rounds, len(reports))})
        assert cap_reached(counted, stop) is decision.stop


@quick
@given(histories, stops, spendings)
def test_figures_are_numbers_and_the_sentence_ends(reports, stop, spending):
    decision = decide(reports, stop, spending, seed=1)
    assert {"flat_rounds", "accurate_fraction", "stable_lower_bound", "labels", "core_hours"} <= set(decision.figures)
    assert decision.sentence.endswith(".")
    assert type(decision).model_validate_json(decision.model_dump_json()) == decision


@quick
@given(st.integers(0, 200), stops, spendings, st.floats(0, 1))
def test_a_batch_never_breaks_the_label_cap(wanted, stop, spending, cost):
    allowed = labels_allowed(wanted, spending, stop, core_hours_per_label=cost)
    assert 0 <= allowed <= wanted
    assert allowed == 0 or spending.labels + allowed <= stop.max_labels
    without_rounds = cap_reached(spending.model_copy(update={"rounds": 0}), stop)
    assert wanted == 0 or (allowed == 0) == (without_rounds is not None)


@given(st.integers(1, 60), st.data())
def test_more_stable_trajectories_never_lower_the_bound(trials, data):
    hits = data.draw(st.integers(0, trials - 1))
    assert clopper_pearson_lower(hits, trials) < clopper_pearson_lower(hits + 1, trials) <= 1
    assert clopper_pearson_lower(hits, trials) <= hits / trials


@quick
@given(st.integers(2, 500), st.floats(0, 1), st.floats(0, 1))
def test_a_batch_shrinks_as_the_accurate_fraction_grows(batch, one, other):
    low, high = sorted((one, other))
    assert 2 <= shrunk_batch(batch, high) <= shrunk_batch(batch, low) <= batch
    assert abs(shrunk_batch(batch, low) - max(batch * (1 - low), 2)) <= 0.5 + 1e-9
    assert shrunk_batch(batch, 0.0) == batch
    assert shrunk_batch(batch, 1.0) == 2
