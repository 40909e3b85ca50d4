"""The gate between labels and training sets: states, energies against isolated atoms, and the audit of a share of them.

What each label must pass by itself (finite, balanced, plausible) was checked when it was computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from alloop.config import CampaignConfig
from alloop.digests import digest_bytes
from alloop.labels.audit import SHARE, audit_spec, direction_of, displaced_structures, finding, is_chosen, turned
from alloop.labels.checks import check_against_atoms, isolated_atom
from alloop.labels.label import Label, LabelFailure, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import LevelOfTheory
from alloop.labels.noise import LabelNoise, estimate_noise
from alloop.labels.states import SPEC, wrong_state
from alloop.registry.imports import LabeledRequest
from alloop.registry.records import LabelRecord, Review
from alloop.registry.registry import Registry
from alloop.registry.status import LabelStatus
from alloop.rng import stream_seed
from alloop.structures.structure import Structure
from flows.progress import Step
from flows.settings import Settings
from flows.steps import metered
from flows.wiring import CampaignRef
from labelers.catalog import availability
from labelers.isolate import LabelPool

STEP = "audit"
ATOMS = "isolated-atom"
INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class GateTally:
    """What the gate did in one call: labels audited, of those without a result, and labels set aside."""

    audited: int
    inconclusive: int
    quarantined: int


def gate(registry: Registry, ref: CampaignRef, round: int, settings: Settings, share: float = SHARE) -> GateTally:
    """Look at complete labels of a campaign that it has not looked at; unsound ones are quarantined, and it is said."""
    voice, config = Step(ref.campaign, round, STEP), registry.campaign(ref.campaign).config
    aside = _states(registry, ref, config, voice) + _beside_atoms(registry, ref, settings, voice)
    seed = stream_seed(config.seed, STEP)
    spec = audit_spec(seed, share)
    chosen = [each for each in _complete(registry, ref, config) if is_chosen(each.label_id, seed, share)]
    seen = registry.audited(ref.campaign, spec) if chosen else set()
    due = [each for each in chosen if each.label_id not in seen]
    if not due or not availability(config.labeler).available:
        return GateTally(0, 0, aside)
    with metered(registry, ref, round, STEP):
        tallies = _audit(registry, due, config.labeler, (seed, spec), settings, voice)
    voice.say(f"{len(due)} labels audited: forces against differences of energies")
    return GateTally(len(due), tallies.count(None), aside + tallies.count(False))


def _complete(registry: Registry, ref: CampaignRef, config: CampaignConfig) -> list[LabelRecord]:
    """What there is to check: not what a person has looked at and taken back."""
    level_id, taken_back = config.labeler.level_id, registry.restored(ref.campaign)
    found = registry.labels(ref.campaign, LabelStatus.COMPLETE)
    return [each for each in found if each.level_id == level_id and each.label_id not in taken_back]


def _pool(settings: Settings) -> LabelPool[int]:
    resources = Resources(threads=1, wall_seconds=settings.label_wall_seconds, memory_mib=settings.label_memory_mib)
    return LabelPool[int](settings.label_workers, resources)


def _audit(
    registry: Registry,
    due: Sequence[LabelRecord],
    level: LevelOfTheory,
    how: tuple[int, str],
    settings: Settings,
    voice: Step,
) -> list[bool | None]:
    """Whether each label is sound, None where that could not be told."""
    seed, spec = how
    structures = registry.structures([each.structure_id for each in due])
    verdicts: list[bool | None] = []
    with _pool(settings) as pool:
        for record, structure in zip(due, structures, strict=True):
            label = label_of(record)
            direction = direction_of(structure, label, seed)
            copy, back = turned(structure, seed)
            wanted = [*displaced_structures(structure, direction), copy]
            *beside, again = pool.map([LabelRequest(each, level) for each in wanted])
            energies = [each.energy for each in beside if isinstance(each, Label)]
            if len(energies) < len(beside):
                failed = next(each.message for each in beside if isinstance(each, LabelFailure))
                registry.record_audit(record.label_id, spec, {"said": f"{INCONCLUSIVE}: {failed}"}, None)
                verdicts.append(None)
                continue
            found = finding(structure, label, level, direction, energies)
            facts = {"said": str(found), "measured": found.measured, "slope": found.said, "tolerance": found.tolerance}
            verdict = None if found.is_sound else Review(str(found), "the audit", f"energies beside it, eV: {energies}")
            registry.record_audit(record.label_id, spec, {**facts, "seed": seed, "energies_ev": energies}, verdict)
            if isinstance(again, Label):
                back_again = Label(again.energy, again.forces @ back, None, again.cost_core_seconds, {"from": "a turned copy"})
                registry.add_duplicate(record.label_id, spec, back_again)
            if not found.is_sound:
                voice.say(f"label {record.label_id} is quarantined: {found}")
            verdicts.append(found.is_sound)
    return verdicts


def noise_of(registry: Registry, campaign: str) -> LabelNoise | None:
    """From labels of a campaign and what they came out as when they were computed or imported again."""
    pairs = [
        (Label(item.energy, item.forces, None, 0.0), Label(again.energy, again.forces, None, 0.0))
        for item, again in registry.duplicates(campaign)
        if again.energy is not None and again.forces is not None
    ]
    return estimate_noise(pairs)


def label_of(record: LabelRecord) -> Label:
    """The numbers of a complete label."""
    assert record.energy is not None
    assert record.forces is not None
    return Label(record.energy, record.forces, record.stress, record.cost_core_seconds or 0.0, record.provenance)


def _states(registry: Registry, ref: CampaignRef, config: CampaignConfig, voice: Step) -> int:
    """Quarantine, once, labels whose state may not be the one that was meant; how many. A person may restore them."""
    said = {each.label_id: wrong_state(each.provenance) for each in _complete(registry, ref, config)}
    wrong = {label_id: message for label_id, message in said.items() if message is not None}
    spec = digest_bytes(SPEC.encode())
    seen = registry.audited(ref.campaign, spec) if wrong else set()
    aside = 0
    for label_id, message in wrong.items():
        if label_id not in seen and registry.record_audit(label_id, spec, {"said": message}, Review(message, "the state")):
            voice.say(f"label {label_id} is quarantined: {message}")
            aside += 1
    return aside


def _beside_atoms(registry: Registry, ref: CampaignRef, settings: Settings, voice: Step) -> int:
    """Quarantine labels whose energy no arrangement of their atoms can have; how many."""
    config = registry.campaign(ref.campaign).config
    if not _is_compared_with_atoms(config.labeler) or not availability(config.labeler).available:
        return 0
    records = _complete(registry, ref, config)
    structures = registry.structures([each.structure_id for each in records])
    atoms = _atoms(registry, structures, config.labeler, settings)
    aside = 0
    for record, structure in zip(records, structures, strict=True):
        if not set(structure.numbers.tolist()) <= set(atoms):
            continue
        refused = check_against_atoms(structure, label_of(record).energy, atoms)
        if refused is not None:
            registry.quarantine(record.label_id, Review(refused.message, "the window", f"isolated atoms, eV: {atoms}"))
            voice.say(f"label {record.label_id} is quarantined: {refused.message}")
            aside += 1
    return aside


def _is_compared_with_atoms(level: LevelOfTheory) -> bool:
    """PySCF counts from separated nuclei and electrons, in molecules; its cells have no isolated atoms at the same level."""
    return level.program == "pyscf" and level.lattice is None


def _atoms(registry: Registry, structures: Sequence[Structure], level: LevelOfTheory, settings: Settings) -> dict[int, float]:
    """Energies in eV of the isolated atoms, computed once for a level of theory; those that fail are left out."""
    numbers = sorted({int(number) for structure in structures for number in structure.numbers})
    known = dict(zip(numbers, registry.stored([isolated_atom(each) for each in numbers], level), strict=True))
    missing = [number for number in numbers if known[number] is None]
    if missing:
        with _pool(settings) as pool:
            requests = [LabelRequest(isolated_atom(number), level) for number in missing]
            computed = list(zip(missing, requests, pool.map(requests), strict=True))
        made = {number: (request, label) for number, request, label in computed if isinstance(label, Label)}
        registry.import_labels([LabeledRequest(*each) for each in made.values()], ATOMS, computed=True)
        known |= {number: label for number, (_, label) in made.items()}
    return {number: label.energy for number, label in known.items() if label is not None}
