"""Two arms of campaigns side by side: found, checked to be comparable, read from their registries, and compared."""

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from alloop.campaign.compare import POWERS, Comparison, Curve, Estimate, Metric, compare_arms, labels_to_target
from alloop.committee.evaluation import EvaluationArrays
from alloop.config import CampaignConfig, config_changes
from alloop.errors import InputError
from alloop.registry.records import CampaignRecord
from alloop.registry.registry import Registry
from alloop.report.data import evaluation_arrays
from alloop.rng import numpy_stream
from flows.wiring import opened

SUFFIXES = (".yaml", ".yml")
# What is learned and what it is measured on; the start structures, which hold charge and spin, are compared by their atoms.
SAME_EVERYWHERE = ("labeler", "evaluation.temperature_kelvin", "evaluation.dynamics")
# What may differ from seed to seed within an arm; each seed may have a prior of its own.
FREE_IN_AN_ARM = ("name", "seed", "stop", "prior", "system.structure", "system.length_unit", "system.spin_multiplicity")


@dataclass(frozen=True, eq=False)
class Measured:
    """A campaign that was run, and its curve. `frames`: ids of the evaluation structures, in the order of the curve's."""

    file: Path
    record: CampaignRecord
    curve: Curve
    frames: tuple[str, ...]

    @property
    def config(self) -> CampaignConfig:
        return self.record.config


@dataclass(frozen=True, eq=False)
class Report:
    """The comparison of arms `a` and `b`, what each campaign came to by itself, and the words that go with it.

    `differences`: what differs between the campaign files of the arms, name and seed apart.
    """

    metric: Metric
    a: tuple[Measured, ...]
    b: tuple[Measured, ...]
    comparison: Comparison
    alone: Mapping[Path, Estimate]
    target_words: str
    differences: tuple[str, ...]


def campaign_files(argument: str) -> list[Path]:
    """The campaign files of an arm: one file, those of a folder (or of its sub-folders, where it holds none itself), or those
    that a pattern matches. Raises `InputError` where there are none."""
    path = Path(argument)
    matches = [path] if path.exists() else [Path(found) for found in sorted(glob.glob(argument))]
    files = [file for match in matches for file in (_files_in(match) if match.is_dir() else [match])]
    if not files:
        raise InputError(
            "a campaign file, a folder of campaign files, or a pattern in quotes, for each arm",
            f"{argument!r}, which names none",
            "check the path; one arm of several seeds is written like 'demo/mixed-seed-*'",
        )
    return files


def _files_in(folder: Path) -> list[Path]:
    def campaigns(pattern: str) -> list[Path]:
        return sorted(file for file in folder.glob(pattern) if file.suffix in SUFFIXES)

    return campaigns("*") or campaigns("*/*")


def measured(file: Path, metric: Metric) -> Measured:
    """Read a campaign that was run.

    Raises what `opened` raises, and `InputError` where no model of it was measured on evaluation frames.
    """
    with opened(file) as (registry, ref):
        record = registry.campaign(ref.campaign)
        arrays = _by_labels(registry, ref.campaign)
        curve, frames = curve_of(arrays, metric) if arrays else (None, ())
    if curve is None:
        raise InputError(
            f"a campaign with a model that was measured on evaluation frames, in {file}",
            "it has none" if record.config.evaluation.frames else "it has `evaluation.frames: 0`",
            "run it further" if record.config.evaluation.frames else "start one with evaluation frames, under another name",
        )
    return Measured(file, record, curve, frames)


def _by_labels(registry: Registry, campaign: str) -> dict[int, EvaluationArrays]:
    """What each round's model said of the evaluation frames, by the labels it learned from; of equal ones the last."""
    found: dict[int, EvaluationArrays] = {}
    for row in registry.rounds(campaign):
        if row.report is not None and row.report.evaluation is not None:
            arrays = evaluation_arrays(registry, campaign, row.round)
            if arrays is not None:
                found[row.report.labels_train + row.report.labels_calibration] = arrays
    return dict(sorted(found.items()))


def curve_of(arrays: Mapping[int, EvaluationArrays], metric: Metric) -> tuple[Curve, tuple[str, ...]]:
    """The curve of rounds by rising labels, on the frames that all of them were measured on, and the ids of these."""
    ids = [each.structure_ids for each in arrays.values()]
    common = sorted(set(ids[0].tolist()).intersection(*(each.tolist() for each in ids)))
    powers, components = [], np.empty(0, dtype=np.int64)
    for each in arrays.values():
        starts = np.concatenate([[0], np.cumsum(each.atoms)[:-1]])
        sums = np.add.reduceat(np.sum(np.abs(each.force_errors) ** POWERS[metric], axis=1), starts)
        place = {key: index for index, key in enumerate(each.structure_ids.tolist())}
        kept = [place[key] for key in common]
        powers.append(sums[kept])
        components = 3 * each.atoms[kept]  # the same in each round, as the structures are
    return Curve(np.array(list(arrays), dtype=np.int64), np.array(powers).reshape(len(arrays), -1), components), tuple(common)


def compare(a: Sequence[Path], b: Sequence[Path], metric: Metric, target: float | None) -> Report:
    """Compare two arms of campaign files; the same files give the same figures, in whatever order.

    Raises what `measured` raises, and `InputError` for campaigns that are not comparable.
    """
    if target is not None and not 0 < target < np.inf:
        raise InputError("a target error above 0 eV/Å", f"--target {target:g}", "give one between the first and the last error")
    _refuse_twice([*a, *b])
    arms = [sorted((measured(file, metric) for file in files), key=lambda each: each.config.seed) for files in (a, b)]
    for arm in arms:
        refuse_mixed_arm(arm)
    refuse_incomparable([*arms[0], *arms[1]])
    curves = [[each.curve for each in arm] for arm in arms]
    chosen, words = _target(arms, metric, target)
    paired = [each.frames for each in arms[0]] == [each.frames for each in arms[1]]
    seed = min(each.config.seed for arm in arms for each in arm)
    comparison = compare_arms(
        curves[0], curves[1], metric, paired=paired, target=chosen, generator=numpy_stream(seed, "compare")
    )
    alone = {
        each.file: labels_to_target([each.curve], comparison.target, metric, generator=numpy_stream(seed, "compare", index))
        for index, each in enumerate([*arms[0], *arms[1]])
    }
    differences = _changes(arms[0][0].config, arms[1][0].config, ("name", "seed"))
    return Report(metric, tuple(arms[0]), tuple(arms[1]), comparison, alone, words, tuple(differences))


def _target(arms: Sequence[Sequence[Measured]], metric: Metric, wanted: float | None) -> tuple[float | None, str]:
    """The target in eV/Å, None for the error that the worse arm ends with; and where it comes from."""
    if wanted is not None:
        return wanted, "as given"
    tolerances = {each.config.stop.force_tolerance_ev_per_angstrom for arm in arms for each in arm}
    if len(tolerances) > 1:
        return None, "what the worse arm ends with, because the campaigns have different `stop.force_tolerance_ev_per_angstrom`"
    (tolerance,) = tolerances
    generator = numpy_stream(0, "compare")
    reached = [labels_to_target([each.curve for each in arm], tolerance, metric, generator=generator).high for arm in arms]
    if np.isfinite(reached).all():
        return tolerance, "`stop.force_tolerance_ev_per_angstrom` of the campaigns"
    return None, f"what the worse arm ends with, because not both arms reach the tolerance of {1000 * tolerance:g} meV/Å"


def _changes(old: CampaignConfig, new: CampaignConfig, free: Sequence[str]) -> list[str]:
    lines = config_changes(old.model_dump(mode="json"), new.model_dump(mode="json"))
    return [line for line in lines if not _is_about(free, line)]


def _refuse_twice(files: Sequence[Path]) -> None:
    resolved = [os.path.realpath(file) for file in files]
    for file, path in zip(files, resolved, strict=True):
        if resolved.count(path) > 1:
            raise InputError("each campaign once, in one arm", f"{file} twice", "name two arms without a common campaign")


def refuse_mixed_arm(arm: Sequence[Measured]) -> None:
    """Campaigns of one arm, by seed, differ by it and by nothing else that matters."""
    for before, each in pairwise(arm):
        changes = _changes(before.config, each.config, FREE_IN_AN_ARM)
        if changes:
            raise InputError(
                "campaigns in an arm that differ by their `seed` alone",
                f"{before.file} and {each.file}: {'; '.join(changes)}",
                "put the others into an arm of their own",
            )
        if before.config.seed == each.config.seed:
            raise InputError(
                "campaigns of different `seed` in an arm",
                f"seed {each.config.seed} in {before.file} and in {each.file}",
                "leave one of them out: a copy adds nothing to what is known",
            )


def refuse_incomparable(campaigns: Sequence[Measured]) -> None:
    """Campaigns of both arms learn the same system at the same level of theory and are measured on frames of one kind."""
    first = campaigns[0]
    for each in campaigns[1:]:
        changes = [line for line in _changes(first.config, each.config, ()) if _is_about(SAME_EVERYWHERE, line)]
        if first.record.start_ids != each.record.start_ids:
            changes.append(f"start structures: {first.config.system.structure} and {each.config.system.structure}, other atoms")
        if changes:
            raise InputError(
                "campaigns of one system and level of theory, measured on frames of one kind",
                f"{first.file} and {each.file}: {'; '.join(changes)}",
                "compare campaigns that differ in how they learn, not in what they learn or are measured on",
            )


def _is_about(keys: Sequence[str], line: str) -> bool:
    """Whether a line of `config_changes` is about one of these keys, or about one below it."""
    name = line.split(":")[0]
    return any(name == key or name.startswith(f"{key}.") for key in keys)
