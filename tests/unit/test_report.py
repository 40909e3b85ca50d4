"""The report on plain values: words, tables, figures and the page."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from alloop.campaign.decide import decide
from alloop.campaign.state import Decision, RoundReport, Spending, StopReason
from alloop.committee.assess import assess
from alloop.committee.calibration import fit_calibration
from alloop.committee.evaluation import EvaluationArrays
from alloop.config import parse_config
from alloop.labels.label import FailureKind
from alloop.posterior.health import SamplerHealth
from alloop.proposals.probe_report import Probe
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.registry.records import CostRecord, LabelRecord, ProposalRecord
from alloop.registry.status import LabelStatus
from alloop.report import figures, tables, words
from alloop.report.by_system import by_system
from alloop.report.data import FinishedRound, ReportData, versions
from alloop.report.html import render
from alloop.report.summary import summary_lines, summary_values
from alloop.structures.structure import Structure
from alloop.structures.systems import system_of
from alloop.training.training_set import Purpose


def made_probe(sigmas, stable) -> Probe:
    """A probe whose whole uncertainty is epistemic."""
    return Probe(sigmas_ev_per_angstrom=sigmas, total_sigmas_ev_per_angstrom=sigmas, stable=stable)


NUMBERS = np.array([6, 6, 8, 1, 1, 1, 1, 1, 1])
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SCALES = (0.110, 0.062, 0.040, 0.031)  # force RMSE of rounds 1 to 4 in eV/Å
EVIL = "<script>alert('x')</script>"


def arrays(scale, frames, seed):
    """Frames of ethanol with errors of about `scale` eV/Å and sigmas half as large as they ought to be."""
    generator = np.random.default_rng(seed)
    atoms = len(NUMBERS)
    sigmas = scale * np.exp(generator.normal(-0.2, 0.45, (frames * atoms, 1))) * np.ones((1, 3))
    forces = generator.normal(0, 1.4, (frames * atoms, 3))
    errors = sigmas * generator.standard_t(5, (frames * atoms, 3)) * 0.8
    energies = generator.normal(-310.0, 0.12, frames)
    return EvaluationArrays(
        structure_ids=np.array([f"{index:032x}" for index in range(frames)]),
        atoms=np.full(frames, atoms),
        numbers=np.tile(NUMBERS, frames),
        energy_true=energies,
        energy_predicted=energies + generator.normal(0, 0.2 * scale, frames),
        energy_aleatoric_var=np.full(frames, (0.06 * scale) ** 2),
        energy_epistemic_var=np.full(frames, (0.08 * scale) ** 2),
        forces_true=forces,
        forces_predicted=forces + errors,
        force_aleatoric_var=0.1 * np.square(sigmas[:, 0]),
        force_epistemic_var=0.15 * np.square(sigmas),
    )


def probe(scale, seed):
    generator = np.random.default_rng(seed)
    sigmas = scale * np.exp(generator.normal(0, 0.35, (16, 20)))
    return made_probe(sigmas=tuple(map(tuple, sigmas.tolist())), stable=(True,) * 16)


def structure(seed):
    return Structure.molecule(NUMBERS, np.random.default_rng(seed).normal(size=(9, 3)) * 3)


def label(index, round, strategy, purpose, *, failed=False):
    return LabelRecord(
        label_id=f"{index:032x}",
        structure_id=f"{index:032x}",
        level_id="0" * 32,
        status=LabelStatus.FAILED if failed else LabelStatus.COMPLETE,
        purpose=purpose,
        strategy=strategy,
        round=round,
        energy=None if failed else -310.0,
        forces=None if failed else np.random.default_rng(index).normal(size=(9, 3)),
        stress=None,
        cost_core_seconds=None if failed else 0.25,
        provenance={},
        failure_kind=FailureKind.CONVERGENCE if failed else None,
        message=f"the SCF did not converge {EVIL}" if failed else None,
        attempts=3 if failed else 1,
    )


def proposals_of(round, first):
    """What one round proposes: 14 to train on, 6 to calibrate, and those rejected."""
    generator = np.random.default_rng(round)
    fates = [(Strategy.ADVERSARIAL, Purpose.TRAIN, None)] * 8 + [(Strategy.DYNAMICS, Purpose.TRAIN, None)] * 6
    fates += [(Strategy.DYNAMICS, Purpose.CALIBRATION, None)] * 6
    fates += [(Strategy.ADVERSARIAL, Purpose.TRAIN, Rejection.OVERLAP)] * (5 - round)
    fates += [(Strategy.ADVERSARIAL, Purpose.TRAIN, Rejection.ENERGY)] * 4 + [
        (Strategy.DYNAMICS, Purpose.TRAIN, Rejection.DUPLICATE)
    ]
    fates += [(Strategy.DYNAMICS, Purpose.TRAIN, Rejection.NOT_SELECTED)] * 40
    return [
        ProposalRecord(
            proposal_id=first + index,
            round=round,
            proposal=Proposal(structure(index), strategy, purpose, score=float(generator.gamma(4, 0.02)), rejection=rejection),
            label_id=None if rejection else f"{first + index:032x}",
            status=None if rejection else LabelStatus.COMPLETE,
            energy=None,
            forces=None,
        )
        for index, (strategy, purpose, rejection) in enumerate(fates)
    ]


def finished(config, round):
    """Rounds 1 to `round`, each with the decision after it."""
    done = []
    for number in range(1, round + 1):
        scale = SCALES[number - 1]
        calibration = fit_calibration(arrays(scale, 9 + 6 * number, seed=number))
        report = RoundReport(
            round=number,
            labels_train=21 + 14 * (number - 1),
            labels_calibration=9 + 6 * (number - 1),
            labels_failed=0,
            training_set=f"{number:032x}",
            calibration_scale=calibration.force_scale,
            probe=probe(scale, number),
            health=SamplerHealth(
                r_hat_log_posterior=1.62 - 0.05 * number,
                r_hat_forces=1.31 - 0.03 * number,
                kinetic_temperature=1.012,
                gradient_evaluations=10_000 * number,
                converged=False,
            ),
            evaluation=assess(arrays(scale, 60, seed=50 + number), calibration, seed=1),
            held_out=None,
            core_seconds={"sample": 40.0},
        )
        spending = Spending(rounds=number, labels=30 + 20 * (number - 1), core_hours=0.02 * number)
        reports = [each.report for each in done] + [report]
        done.append(FinishedRound(report, decide(reports, config.stop, spending, seed=config.seed)))
    return tuple(done)


def campaign(rounds=4, **changes):
    """A campaign of four rounds that ended by its cap, one label of it failed."""
    config = parse_config(
        {
            "name": "ethanol",
            "system": {"structure": "ethanol.xyz"},
            "labeler": "gfn2",
            "stop": {"max_rounds": 4, "force_tolerance_ev_per_angstrom": 0.03},
        }
    )
    initial = [
        label(index, 0, Strategy.INITIAL, Purpose.CALIBRATION if index % 10 < 3 else Purpose.TRAIN) for index in range(30)
    ]
    measuring = [label(1000 + index, 0, Strategy.LABELER_DYNAMICS, Purpose.EVALUATION) for index in range(60)]
    proposals, labels, costs = [], initial + measuring, []
    for number in range(1, rounds + 1):
        made = proposals_of(number, 2000 + 200 * number) if number < rounds else []
        proposals += made
        accepted = [record for record in made if record.label_id]
        labels += [
            label(
                record.proposal_id, number, record.proposal.strategy, record.proposal.purpose, failed=number == 2 and index == 0
            )
            for index, record in enumerate(accepted)
        ]
        costs += [
            CostRecord(number, step, seconds, seconds, NOW)
            for step, seconds in (("sample", 40.0 + 9 * number), ("report", 6.0), ("propose", 15.0))
        ]
    done = finished(config, rounds)
    last = SCALES[rounds - 1]
    data = ReportData(
        config=config,
        start=(structure(0),),
        created_at=NOW,
        stop=done[-1].decision if done and done[-1].decision and done[-1].decision.stop else None,
        spending=Spending(rounds=rounds, labels=89, core_hours=0.081),
        rounds=done,
        labels=tuple(labels),
        proposals=tuple(proposals),
        costs=tuple(costs),
        evaluation=arrays(last, 60, seed=50 + rounds),
        calibration=fit_calibration(arrays(last, 9 + 6 * rounds, seed=rounds)),
        versions=versions(),
    )
    return replace(data, **changes)


@pytest.fixture(scope="module")
def data():
    return campaign()


@pytest.fixture(scope="module")
def page(data):
    return render(data)


def with_stop(data, reason):
    return replace(data, stop=Decision(stop=reason, sentence="Because.", figures={}))


class Outline(HTMLParser):
    """Tags that are open, ids, and everything that points somewhere."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.targets, self.tags = [], [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src"):
                self.targets.append(value)
            self.targets += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline(text):
    found = Outline()
    found.feed(text)
    assert found.open == []
    return found


def test_page_is_well_formed_and_stands_alone(page):
    found = outline(page)
    assert len(set(found.ids)) == len(found.ids)
    assert {"script", "link", "img", "iframe"}.isdisjoint(found.tags)
    assert all(target.startswith("#") and target[1:] in found.ids for target in found.targets)
    assert set(re.findall(r"https?://[^\"\s<]*", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page


def test_page_holds_every_part(page):
    for heading in (
        "In words",
        "Learning",
        "Accuracy and error bars",
        "Sampler",
        "Proposals",
        "Cost",
        "Labels",
        "How to make it again",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<svg") == 9
    assert "meV/Å" in page
    assert "n = 1,620 components" in page


def test_the_same_campaign_gives_the_same_page(data, page):
    assert render(data) == page


def test_names_and_messages_are_escaped(data):
    config = parse_config(
        data.config.model_dump()
        | {"labeler": {"program": "ase", "factory": "a:b", "description": EVIL}, "system": {"structure": EVIL + ".xyz"}}
    )
    stop = Decision(stop=StopReason.PLATEAU, sentence=f"`{EVIL}` {EVIL}", figures={})
    page = render(replace(data, config=config, stop=stop, versions={EVIL: EVIL}))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    outline(page)


def test_a_large_campaign_stays_small(data):
    many = [label(index, index % 7, Strategy.DYNAMICS, Purpose.TRAIN) for index in range(5000)]
    page = render(replace(data, labels=tuple(many), evaluation=arrays(0.03, 3000, seed=0)))
    assert len(page.encode()) < 3_000_000
    assert "3,000 more are in the registry" in page
    assert "n = 81,000 components" in page


@pytest.mark.parametrize("reason", list(StopReason))
def test_every_end_has_a_headline_and_advice(data, reason):
    ended = with_stop(data, reason)
    assert words.headline(ended).endswith("after 4 rounds and 89 labels")
    assert words.advice(ended)[0] != words.advice(replace(data, stop=None))[0]


def test_before_the_first_model_the_page_says_so(data):
    young = replace(
        data,
        rounds=(),
        stop=None,
        evaluation=None,
        calibration=None,
        proposals=(),
        costs=(),
        labels=(),
        spending=Spending(rounds=0, labels=0, core_hours=0.0),
    )
    page = render(young)
    outline(page)
    assert "Under way: 0 rounds and 0 labels so far" in page
    assert "No model has been measured yet." in page
    assert not re.search(r"\bnan\b", page.lower().split("</style>")[1])
    assert dict(summary_lines(young))["why"] == "Nothing has been decided yet."


def test_without_kept_arrays_the_page_says_what_is_missing(data):
    page = render(replace(data, evaluation=None))
    outline(page)
    assert "were not kept" in page
    assert page.count("<svg") == 5


def test_without_evaluation_frames_the_source_of_the_errors_is_named(data):
    rounds = tuple(
        replace(each, report=each.report.model_copy(update={"evaluation": None, "held_out": each.report.evaluation}))
        for each in data.rounds
    )
    blind = replace(data, rounds=rounds, evaluation=None)
    assert "60 calibration labels held out from training" in words.learned(blind)
    assert any("evaluation.frames" in item for item in words.advice(blind))
    outline(render(blind))


def test_the_error_bar_is_judged_by_its_coverage(data):
    metrics = data.last_metrics
    assert "honest" in words.trust(metrics)
    assert "too small" in words.trust(metrics.model_copy(update={"coverage_95": 0.85}))
    assert "wider than" in words.trust(metrics.model_copy(update={"coverage_95": 0.99}))


def test_unconverged_chains_and_failures_are_not_hidden(data, page):
    assert any("have not converged" in item for item in words.advice(data))
    assert "1 label failed" in words.costs(data)
    assert page.index("convergence: the SCF did not converge") < page.index("labeler-dynamics</td>")


def test_members_that_are_not_sampled_are_not_judged_as_chains(data):
    nothing = {"r_hat_forces": None, "r_hat_log_posterior": None, "kinetic_temperature": None}
    health = data.last.report.health.model_copy(update={"method": "dropout", "held_out_labels": 6} | nothing)
    last = replace(data.last, report=data.last.report.model_copy(update={"health": health}))
    other = replace(data, rounds=(*data.rounds[:-1], last))
    assert "neither R-hat nor a kinetic temperature" in words.sampler(other)
    assert not any("converged" in item for item in words.advice(other))
    assert any("not those of a posterior: one network behind dropout masks" in item for item in words.advice(other))
    row = tables.sampler(other).rows[-1]
    assert row[1] == row[2] == row[5] == row[-1] == "–"
    assert "sampler converged" not in render(other)


def test_every_proposal_has_one_fate(data):
    table = tables.fates(data)
    for row in table.rows:
        assert int(row[1]) == sum(int(cell) for cell in row[2:-1])
    assert sum(int(row[1]) for row in table.rows) == len(data.proposals)
    assert all(len(row) == len(table.head) for row in table.rows)
    counted = {name: count for name, _, count in tables.reasons(data)}
    assert counted == {"overlap": 9, "energy": 12, "duplicate": 3, "not selected": 120}


def test_clauses_agree_with_the_decision(data):
    table = tables.clauses(data)
    assert [row[0] for row in table.rows] == ["flat", "accurate", "stable"]
    assert [row[-1] for row in table.rows] == ["no", "no", "yes"]
    assert data.stop.stop is StopReason.CAP_ROUNDS


def test_several_systems_have_a_row_each(data):
    """Two systems, the second with errors twice as large on its half of the frames; the first is finished."""
    assert by_system(data).rows == ()
    kept = arrays(0.03, 4, seed=3)
    atoms = kept.atoms[0]
    kept = replace(kept, forces_predicted=kept.forces_true + np.repeat([0.1, 0.1, 0.2, 0.2], atoms)[:, None])
    frames = [structure(0), structure(1), *(replace(structure(index), total_charge=2) for index in (2, 3))]
    records = [
        ProposalRecord(index, 0, Proposal(each, Strategy.LABELER_DYNAMICS, purpose), "l", LabelStatus.COMPLETE, None, None)
        for index, each in enumerate(frames)
        for purpose in (Purpose.EVALUATION, *[Purpose.TRAIN] * (index == 3))
    ]
    stored = [each.proposal.structure.structure_id for each in records]
    kept = replace(kept, structure_ids=np.array(stored[:4]))
    first, second = system_of(frames[0]), system_of(frames[3])
    halves = (first,) * 8 + (second,) * 8
    rounds = tuple(
        replace(each, report=each.report.model_copy(update={"probe": each.report.probe.model_copy(update={"systems": halves})}))
        for each in data.rounds
    )
    rounds = (*rounds[:-1], replace(rounds[-1], decision=rounds[-1].decision.model_copy(update={"finished": (first,)})))
    table = by_system(replace(data, rounds=rounds, proposals=tuple(records), evaluation=kept))
    assert [row[:3] for row in table.rows] == [(first, "0", "100"), (second, "1", "200")]
    assert [(row[6], row[7]) for row in table.rows] == [("8 of 8", "no"), ("8 of 8", "yes")]


def test_cost_adds_up(data):
    by_step = data.core_seconds_by_step()
    assert by_step["labels"] == pytest.approx(0.25 * 89)
    assert by_step["labels (evaluation)"] == pytest.approx(0.25 * 60)
    assert by_step["sample"] == 4 * 40 + 9 * 10
    # the first model: 30 labels and the steps of round 1; the last: all labels but those that measure
    assert 3600 * data.core_hours_of_learning(1) == pytest.approx(30 * 0.25 + 49 + 6 + 15)
    assert 3600 * data.core_hours_of_learning(4) == pytest.approx(sum(by_step.values()) - by_step["labels (evaluation)"])


def test_summary_says_what_was_asked_of_it(data):
    lines = dict(summary_lines(data, Path("ethanol.report.html")))
    assert lines["force MAE / RMSE"].endswith("kcal/mol/Å")
    assert re.fullmatch(r"[\d.]+ % \([\d.]+ to [\d.]+\)", lines["coverage at 95 %"])
    assert re.fullmatch(r"[\d.]+ % \([\d.]+ to [\d.]+\)", lines["coverage at 68 %"])
    assert "converged: no" in lines["sampler"]
    assert "total" in lines["core-seconds"]
    assert lines["report"] == "ethanol.report.html"
    assert "never used for training" in lines["measured on"]


def test_summary_values_are_json(data):
    values = json.loads(json.dumps(summary_values(data), allow_nan=False))
    assert values["stop"] == "CAP_ROUNDS"
    assert values["last"]["force_rmse"] < 0.6 * values["first"]["force_rmse"]
    assert values["spending"]["labels"] == 89


def test_units_in_words():
    assert words.force(0.05) == "50.0 meV/Å (1.15 kcal/mol/Å)"
    assert words.duration(42.4) == "42 core-seconds"
    assert words.duration(600) == "10.0 core-minutes"
    assert words.duration(9000) == "2.5 core-hours"
    assert words.plural(1, "label") == "1 label"


def test_formula_is_of_the_start(data):
    assert words.formula(data) == "C2H6O"


@pytest.mark.parametrize("count", [1, 2, 25])
def test_figures_of_few_points_are_drawn(count):
    few = arrays(0.05, count, seed=3)
    fitted = fit_calibration(few)
    sigmas = few.force_sigmas * fitted.force_scale
    for figure in (
        figures.force_parity(few.forces_true, few.forces_predicted, few.numbers),
        figures.energy_parity(few.energy_true, few.energy_predicted, few.energy_sigmas, few.atoms),
        figures.error_against_sigma(few.force_errors, sigmas),
        figures.calibration_curve(few.force_errors, few.force_sigmas, sigmas, {0.95: (0.9, None)}),
        figures.learning_curve([30.0], "labels", {"RMSE": [0.05], "MAE": [None]}, 0.05),
        figures.probe_bands([1, 2], [np.array([]), np.full(count, 0.1)], 0.05),
    ):
        assert ElementTree.fromstring(figure.replace("xlink:href", "href")).tag.endswith("svg")
