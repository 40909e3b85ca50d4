"""The answer of a study in Markdown: its lines, what has an aim, two arms beside each other, and where it was measured."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

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
    commits, machines = ({figures[name].split(", load")[0] for _, figures in lines} for name in ("commit", "machine"))
    size = {"reduced": "Reduced size", "full": "Full size", "quick": "A miniature: its figures mean nothing"}[answer["size"]]
    whole = "" if answer["complete"] else " Not finished."
    told = f"{size}; seeds {', '.join(map(str, seeds))}; {minutes:.0f} core-minutes; commit {', '.join(sorted(commits))};"
    return f"{told} {'; '.join(sorted(machines))}.{whole}"


def core_minutes(answer: Mapping[str, Any]) -> float:
    """What its cells took in all calls: a posterior that was drawn in an earlier one counts too, and once."""
    here: dict[Any, float] = {}
    for index, each in enumerate(answer["cells"]):
        posterior = each["figures"].get("sampling_core_seconds")
        key = index if posterior is None else ("posterior", posterior)
        here[key] = here.get(key, 0.0) + each["figures"]["core_seconds"]
    return sum(max(spent, key[1]) if isinstance(key, tuple) else spent for key, spent in here.items()) / SECONDS_PER_MINUTE


def _figures(study: Study, lines: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    published = [(dict(cell), dict(figures)) for cell, figures in getattr(study, "PUBLISHED", ())]
    for cell, figures in [*lines, *published]:
        groups.setdefault(tuple(cell.get(name, "") for name in study.GROUP), []).append(figures)
    columns = [column for column in study.COLUMNS if any(each.get(column.key) is not None for _, each in lines)]
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
            f"{each['ours']:.3f}",
            f"{each['theirs']:.3f}",
            f"{each['difference']:+.3f}",
            f"{each['low']:+.3f} to {each['high']:+.3f}",
        ]
        for each in found
    ]
    return _markdown(["what", "figure", "first", "second", "difference", "95 % interval"], body)


def _markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])
