"""The answer of a study in Markdown: its lines, what has an aim, two arms beside each other, and where it was measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alloop.posterior.health import shown
from benchmarks.evidence.study import Column, Study, study_of
from benchmarks.table import table as judgements

SECONDS_PER_MINUTE = 60.0


def table(answer: Mapping[str, Any]) -> str:
    """All of it. Figures are means over seeds, with the least and the largest where there are several."""
    study = study_of(answer["name"])
    lines = [(each["cell"], each["figures"]) for each in answer["cells"]]
    parts = [_where(answer, lines), _figures(study, lines)]
    judged = judgements(dict(answer)).split("\n", 2)[2].strip()
    return "\n\n".join(part for part in (*parts, judged, _comparisons(answer["comparisons"])) if part)


def _where(answer: Mapping[str, Any], lines: Sequence[tuple[Any, Any]]) -> str:
    """Size, seeds, and what it took. Cells that fill several lines count once."""
    seeds = sorted({cell["seed"] for cell, _ in lines if "seed" in cell})
    minutes = core_minutes(answer)
    commits = {commit for _, figures in lines for commit in (figures["commit"], *figures.get("drawn_by", ()))}
    machines = {figures["machine"].split(", load")[0] for _, figures in lines}
    size = {"reduced": "Reduced size", "full": "Full size", "quick": "A miniature: its figures mean nothing"}[answer["size"]]
    whole = "" if answer["complete"] else " Not finished."
    told = f"{size}; seeds {', '.join(map(str, seeds))}; {minutes:.0f} core-minutes; commit {', '.join(sorted(commits))};"
    return f"{told} {'; '.join(sorted(machines))}.{whole}"


def core_minutes(answer: Mapping[str, Any]) -> float:
    """What its cells took, in all calls where they drew posteriors: each of these counts once, whoever drew it."""
    here: dict[Any, list[float]] = {}
    for index, each in enumerate(answer["cells"]):
        figures = each["figures"]
        spent = here.setdefault(figures.get("posterior", index), [0.0, 0.0])
        spent[0] += figures["core_seconds"]
        spent[1] = max(spent[1], figures.get("sampling_core_seconds") or 0.0)
    return sum(max(spent) for spent in here.values()) / SECONDS_PER_MINUTE


def _figures(study: Study, lines: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    molecules = {cell.get("molecule") for cell, _ in lines}
    published = [
        (cell, figures) for cell, figures in getattr(study, "PUBLISHED", ()) if cell.get("molecule") in {None, *molecules}
    ]
    ours = {tuple(cell.get(name, "") for name in study.GROUP) for cell, _ in lines}
    if any(tuple(cell.get(name, "") for name in study.GROUP) in ours for cell, _ in published):
        raise ValueError(f"{study.TITLE}: a published line has the name of one that was measured")
    for cell, figures in [*lines, *published]:
        groups.setdefault(tuple(cell.get(name, "") for name in study.GROUP), []).append(figures)
    columns = [column for column in study.COLUMNS if any(each.get(column.key) is not None for _, each in [*lines, *published])]
    head = [*study.GROUP, *(column.title for column in columns)]
    body = [
        [*map(str, group), *(_mean([each.get(column.key) for each in found], column) for column in columns)]
        for group, found in groups.items()
    ]
    return _markdown(head, body)


def _mean(values: Iterable[Any], column: Column) -> str:
    """Of those that are known."""
    known = [column.scale * float(value) for value in values if value is not None]
    if not known:
        return ""
    mean, digits = sum(known) / len(known), column.digits
    spread = f" ({min(known):.{digits}f} to {max(known):.{digits}f})" if len(known) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def _comparisons(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    body = [
        [
            each["name"],
            each["figure"],
            shown(each["ours"], 3),
            shown(each["theirs"], 3),
            shown(each["difference"], 3),
            f"{shown(each['low'], 3)} to {shown(each['high'], 3)}",
        ]
        for each in found
    ]
    return _markdown(["what", "figure", "first", "second", "difference", "95 % interval"], body)


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])
