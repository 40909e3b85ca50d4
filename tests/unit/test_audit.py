"""The audit: sound labels pass, wrong signs and factors are found, and what is found is remembered and acted on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alloop.config import CampaignConfig, parse_config
from alloop.labels.audit import Finding, direction_of, displaced_structures, finding, is_chosen, turned
from alloop.labels.checks import isolated_atom
from alloop.labels.label import Label, LabelRequest
from alloop.labels.level_of_theory import LevelOfTheory, ScriptedLevel, TbliteLevel
from alloop.labels.noise import estimate_noise
from alloop.proposals.proposal import Proposal
from alloop.registry.holders import this_process
from alloop.registry.imports import LabeledRequest
from alloop.registry.records import Review
from alloop.registry.registry import Registry
from alloop.registry.status import AttemptOutcome, LabelStatus
from alloop.structures.structure import Structure
from flows.gate import GateTally, gate, label_of, noise_of
from flows.settings import Settings
from flows.wiring import CampaignRef
from labelers.attempt import attempt
from labelers.catalog import labeler_for

ETHANOL = Structure.molecule(
    [6, 6, 8, 1, 1, 1, 1, 1, 1],
    [
        [1.17, -0.40, 0.0],
        [0.0, 0.55, 0.0],
        [-1.19, -0.21, 0.0],
        [-1.95, 0.38, 0.0],
        [2.10, 0.17, 0.0],
        [1.12, -1.04, 0.89],
        [1.12, -1.04, -0.89],
        [0.05, 1.20, 0.89],
        [0.05, 1.20, -0.89],
    ],
)
SILICON = Structure(
    np.full(2, 14),
    np.array([[0.0, 0.0, 0.0], [1.3575, 1.3575, 1.3575]]),
    2.715 * (1.0 - np.eye(3)),
    (True, True, True),
    0,
    1,
)


def moved(structure: Structure, seed: int) -> Structure:
    return structure.with_positions(
        structure.positions + np.random.default_rng(seed).normal(scale=0.05, size=structure.positions.shape)
    )


def label(structure: Structure, level: LevelOfTheory) -> Label:
    from alloop.labels.labeler import Resources

    made = attempt(labeler_for(level), LabelRequest(structure, level, stress=structure.is_periodic), Resources())
    assert isinstance(made, Label), made
    return made


def audited(structure: Structure, made: Label, level: LevelOfTheory, seed: int = 1) -> Finding:
    direction = direction_of(structure, made, seed)
    energies = [label(each, level).energy for each in displaced_structures(structure, direction)]
    return finding(structure, made, level, direction, energies)


ATOMS = {1: -13.6, 8: -2040.0}  # eV
CASES = [(ETHANOL, ScriptedLevel()), (ETHANOL, TbliteLevel()), (SILICON, TbliteLevel(method="GFN1-xTB"))]


@pytest.mark.parametrize(("structure", "level"), CASES, ids=["scripted", "molecule", "cell"])
def test_sound_labels_pass_and_their_errors_are_found(structure: Structure, level: LevelOfTheory) -> None:
    for seed in range(3):
        here = moved(structure, seed)
        made = label(here, level)
        assert audited(here, made, level, seed).is_sound
        for wrong in errors_of(made):
            assert not audited(here, wrong, level, seed).is_sound


def errors_of(made: Label) -> list[Label]:
    """Sign and factor errors: of all forces, of one atom that is pulled, of the stress."""
    wrong = [replace(made, forces=factor * made.forces) for factor in (-1.0, 0.0194, 0.0434, 23.06, 27.2114, 51.42, 1000.0)]
    wrong += [replace(made, stress=-made.stress)] if made.stress is not None else []
    pulled = np.argsort(np.linalg.norm(made.forces, axis=1))[-2:]
    for atom in pulled if made.stress is None else []:
        for factor in (-1.0, 0.5, 2.0):
            forces = made.forces.copy()
            forces[atom] *= factor
            wrong.append(replace(made, forces=forces))
    return wrong


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_choice_is_seeded_and_as_large_as_asked(share: float) -> None:
    ids = [f"{number:032x}" for number in range(20_000)]
    chosen = {each for each in ids if is_chosen(each, 1, share)}
    assert chosen == {each for each in reversed(ids) if is_chosen(each, 1, share)}
    other = {each for each in ids if is_chosen(each, 2, share)}
    spread = np.sqrt(len(ids) * share * (1 - share))
    assert abs(len(chosen) - len(ids) * share) < 5 * spread  # one run in 10^6 would differ by chance
    assert abs(len(chosen & other) - len(ids) * share**2) < 5 * np.sqrt(len(ids)) * share


@pytest.mark.parametrize("level", [TbliteLevel()], ids=str)
@pytest.mark.parametrize("structure", [ETHANOL, SILICON], ids=["molecule", "cell"])
def test_a_turned_copy_has_the_same_label(structure: Structure, level: LevelOfTheory) -> None:
    here = moved(structure, 4)
    copy, back = turned(here, 5)
    assert np.linalg.det(back) == pytest.approx(1.0)
    assert not np.allclose(copy.positions, here.positions, atol=0.05)
    there, again = label(here, level), label(copy, level)
    noise = estimate_noise([(there, replace(again, forces=again.forces @ back))])
    assert noise is not None
    assert noise.energy_ev_per_atom < 1e-5
    assert noise.force_ev_per_angstrom < 1e-4


def test_noise_is_found_as_large_as_it_is() -> None:
    generator = np.random.default_rng(3)
    pairs = []
    for _ in range(400):
        first, second = generator.normal(scale=0.02, size=(2, 4, 3))
        energies = generator.normal(scale=0.004, size=2)
        pairs.append((Label(energies[0], first, None, 0.0), Label(energies[1], second, None, 0.0)))
    noise = estimate_noise(pairs)
    assert noise is not None
    # 400 and 4800 squares: relative standard errors of the roots 0.035 and 0.010; five of them are allowed.
    assert noise.energy_ev_per_atom == pytest.approx(0.001, rel=0.18)
    assert noise.force_ev_per_angstrom == pytest.approx(0.02, rel=0.05)
    assert estimate_noise([]) is None


def test_a_restored_label_stays_restored_whatever_the_window_says(
    tmp_path: Path, water: Structure, rattled: Callable[..., Sequence[Proposal]]
) -> None:
    pytest.importorskip("pyscf")
    ref = CampaignRef(campaign="water", database=str(tmp_path / "water.db"), files=str(tmp_path / "water.files"))
    config = parse_config({"name": "water", "system": {"structure": "water.xyz"}, "labeler": "pyscf"})
    settings = Settings(label_workers=1)
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        registry.create_campaign(config, [water])
        registry.propose("water", 0, rattled(3), config.labeler)
        known = [(isolated_atom(number), Label(energy, np.zeros((1, 3)), None, 0.1)) for number, energy in ATOMS.items()]
        batch = [LabeledRequest(LabelRequest(atom, config.labeler), made) for atom, made in known]
        registry.import_labels(batch, "isolated-atom", computed=True)
        for place, claim in enumerate(registry.claim(this_process(), limit=3, lease_seconds=60)):
            energy = ATOMS[8] + 2 * ATOMS[1] + (200.0 if place == 0 else -10.0)
            registry.commit(claim, Label(energy, np.zeros((3, 3)), None, 0.1))
        assert gate(registry, ref, 0, settings, share=0.0).quarantined == 1
        (aside,) = registry.labels("water", LabelStatus.QUARANTINED)
        assert "no arrangement of these atoms" in (aside.message or "")
        registry.restore(aside.label_id, Review("the zero of energy is another", "a person"))
        assert gate(registry, ref, 0, settings, share=0.0) == GateTally(0, 0, 0)
        assert registry.labels("water", LabelStatus.QUARANTINED) == []
        history = registry.attempts(aside.label_id)
        assert [each.outcome for each in history] == [
            AttemptOutcome.COMPLETE,
            AttemptOutcome.QUARANTINED,
            AttemptOutcome.RESTORED,
        ]
        assert [each.provenance.get("by") for each in history[1:]] == ["the window", "a person"]


def test_the_gate_quarantines_what_is_unsound_once(
    tmp_path: Path, water: Structure, water_config: CampaignConfig, rattled: Callable[..., Sequence[Proposal]]
) -> None:
    ref = CampaignRef(campaign="water", database=str(tmp_path / "water.db"), files=str(tmp_path / "water.files"))
    settings = Settings(label_workers=1)
    with Registry.open(tmp_path / "water.db", create=True) as registry:
        registry.create_campaign(water_config, [water])
        registry.propose("water", 0, rattled(5), water_config.labeler)
        bad = ""
        for place, claim in enumerate(registry.claim(this_process(), limit=5, lease_seconds=60)):
            made = label(claim.request.structure, claim.request.level)
            wrong = replace(made, forces=-made.forces) if place == 2 else made
            registry.commit(claim, wrong)
            bad = claim.label_id if place == 2 else bad
        assert gate(registry, ref, 0, settings, share=1.0) == GateTally(audited=5, inconclusive=0, quarantined=1)
        assert gate(registry, ref, 0, settings, share=1.0) == GateTally(0, 0, 0)
        (aside,) = registry.labels("water", LabelStatus.QUARANTINED)
        assert aside.label_id == bad
        assert aside.message is not None
        assert "the slope is" in aside.message
        history = registry.attempts(aside.label_id)
        assert [each.outcome for each in history][:3] == [
            AttemptOutcome.COMPLETE,
            AttemptOutcome.AUDITED,
            AttemptOutcome.QUARANTINED,
        ]
        assert "eV" in (history[2].evidence or "")
        assert len(registry.duplicates("water")) == 4, "what is quarantined tells no noise"
        noise = noise_of(registry, "water")
        assert noise is not None
        assert noise.force_ev_per_angstrom < 1e-9
        assert label_of(registry.labels("water", LabelStatus.COMPLETE)[0]).energy < 0.0
        assert [cost.step for cost in registry.costs("water")] == ["audit"]
