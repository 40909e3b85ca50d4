"""A report made from a real registry: one campaign, one round, every part written by the verbs that flows use."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alloop.campaign.decide import decide
from alloop.campaign.state import RoundReport
from alloop.committee.assess import assess
from alloop.committee.calibration import fit_calibration
from alloop.committee.committee import Committee, compare
from alloop.committee.evaluation import EvaluationArrays, load_evaluation, save_evaluation
from alloop.config import CampaignConfig
from alloop.errors import NotFoundError
from alloop.labels.label import FailureKind, Label, LabelFailure
from alloop.model.potential import Potential
from alloop.model.reference_energies import fit_scaling
from alloop.posterior.health import SamplerHealth
from alloop.posterior.sample import PosteriorSample
from alloop.proposals.probe_report import Probe
from alloop.proposals.proposal import Proposal
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.report.data import evaluation_path, gather
from alloop.report.html import render_report
from alloop.sections import ModelConfig
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose

MODEL = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))


def made_probe(sigmas, stable) -> Probe:
    """A probe whose whole uncertainty is epistemic."""
    return Probe(sigmas_ev_per_angstrom=sigmas, total_sigmas_ev_per_angstrom=sigmas, stable=stable)


Rattled = Callable[..., list[Proposal]]


def label_all(registry: Registry) -> None:
    """Complete every label but the last one, which fails."""
    claims = registry.claim(this_process(), limit=100, lease_seconds=60, campaign="water")
    for index, claim in enumerate(claims):
        if index == len(claims) - 1:
            registry.fail(claim, LabelFailure(FailureKind.INPUT, "two atoms <overlap>"))
        else:
            forces = np.random.default_rng(index).normal(size=(3, 3))
            registry.commit(claim, Label(-76.0 + 0.01 * index, forces, None, cost_core_seconds=2.0))


def predictions(labeled: list[LabeledStructure]) -> EvaluationArrays:
    """Labels beside predictions that are off by about 0.05 eV/Å."""
    generator = np.random.default_rng(0)
    forces = np.concatenate([item.forces for item in labeled])
    energies = np.array([item.energy for item in labeled])
    return EvaluationArrays(
        structure_ids=np.array([item.structure.structure_id for item in labeled]),
        atoms=np.full(len(labeled), 3),
        numbers=np.tile([8, 1, 1], len(labeled)),
        energy_true=energies,
        energy_predicted=energies + generator.normal(0, 0.002, len(labeled)),
        energy_aleatoric_var=np.full(len(labeled), 1e-6),
        energy_epistemic_var=np.full(len(labeled), 1e-6),
        forces_true=forces,
        forces_predicted=forces + generator.normal(0, 0.05, forces.shape),
        force_aleatoric_var=np.full(len(forces), 1e-3),
        force_epistemic_var=np.full(forces.shape, 1e-3),
    )


@pytest.fixture
def measured(registry: Registry, water: Structure, water_config: CampaignConfig, rattled: Rattled) -> Registry:
    """Campaign `water` after its first round."""
    registry.create_campaign(water_config, [water])
    registry.begin_round("water", 0)
    for seed, purpose in enumerate((Purpose.TRAIN, Purpose.CALIBRATION, Purpose.EVALUATION)):
        registry.propose("water", 0, rattled(6, seed=seed, purpose=purpose), water_config.labeler)
    label_all(registry)
    training_set = registry.snapshot_training_set("water", 1)
    registry.begin_round("water", 1)
    train = training_set.train
    scaling = fit_scaling([x.structure for x in train], [x.energy for x in train], [x.forces for x in train], 5.0)
    model = {"config": MODEL.model_dump(mode="json"), "scaling": scaling.model_dump(mode="json")}
    drawn = np.random.default_rng(1).normal(size=(2, Potential(MODEL, scaling).n_parameters)).astype(np.float32)
    samples = [PosteriorSample(row, chain=chain, step=10, log_posterior=-1.0) for chain, row in enumerate(drawn)]
    health = SamplerHealth(
        r_hat_log_posterior=1.1, r_hat_forces=1.2, kinetic_temperature=1.0, gradient_evaluations=500, converged=False
    )
    posterior = registry.add_posterior("water", 1, training_set.digest, samples, model, health.model_dump(mode="json"))
    calibration = fit_calibration(predictions(registry.labeled("water", Purpose.CALIBRATION)))
    registry.set_calibration(posterior, calibration.to_json())
    arrays = predictions(registry.labeled("water", Purpose.EVALUATION))
    save_evaluation(arrays, evaluation_path(registry.blobs.root, 1))
    registry.record_cost("water", 1, "sample", 30.0, 31.0)
    report = RoundReport(
        round=1,
        labels_train=len(training_set.train),
        labels_calibration=len(training_set.calibration),
        labels_failed=1,
        training_set=training_set.digest,
        calibration_scale=calibration.force_scale,
        probe=made_probe(sigmas=((0.01, 0.02),) * 16, stable=(True,) * 16),
        health=health,
        evaluation=assess(arrays, calibration, seed=water_config.seed),
        held_out=None,
        core_seconds={"sample": 30.0},
    )
    decision = decide([report], water_config.stop, registry.spending("water"), seed=water_config.seed)
    registry.finish_round("water", 1, report, decision)
    registry.stop_campaign("water", decision)
    return registry


def test_everything_comes_back_from_the_registry(measured: Registry) -> None:
    data = gather(measured, "water")
    assert data.last is not None
    assert data.last.report.round == 1
    assert data.last_metrics == data.last.report.evaluation
    assert data.last_metrics is not None
    assert data.calibration is not None
    assert data.evaluation is not None
    assert len(data.evaluation) == data.last_metrics.frames == 5
    assert sum(label.status is LabelStatus.COMPLETE for label in data.labels) == 17
    assert data.core_seconds_by_step()["sample"] == 30.0
    assert data.spending.rounds == 1


def test_the_page_is_written_whole(measured: Registry, tmp_path: Path) -> None:
    output = tmp_path / "reports" / "water.html"
    assert render_report(measured, "water", output) == output
    page = output.read_text(encoding="utf-8")
    assert "Goal reached after 1 round and" in page
    assert "two atoms &lt;overlap&gt;" in page
    assert page.count("<svg") == 9
    assert [file.name for file in output.parent.iterdir()] == ["water.html"]


def test_a_campaign_that_only_labels_has_a_page_too(queue: Registry, tmp_path: Path) -> None:
    page = render_report(queue, "water", tmp_path / "water.html").read_text(encoding="utf-8")
    assert "No model has been measured yet." in page
    assert "6 waiting" in page


def test_an_unknown_campaign_writes_nothing(queue: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'water'"):
        render_report(queue, "watr", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize("content", [None, b"", b"not an archive"])
def test_evaluation_arrays_that_were_lost_are_made_anew(measured: Registry, tmp_path: Path, content: bytes | None) -> None:
    path = evaluation_path(measured.blobs.root, 1)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    page = render_report(measured, "water", tmp_path / "water.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 9
    posterior, again = measured.posterior("water", 1), load_evaluation(path)
    assert posterior is not None
    assert again is not None
    wanted = compare(Committee.load(posterior.model, posterior.samples), measured.labeled("water", Purpose.EVALUATION))
    assert wanted is not None
    np.testing.assert_array_equal(again.forces_predicted, wanted.forces_predicted)
    np.testing.assert_array_equal(again.energy_true, [item.energy for item in measured.labeled("water", Purpose.EVALUATION)])
