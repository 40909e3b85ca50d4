"""An answer in Markdown: the same on a screen and on a page."""

from typing import Any


def table(answer: dict[str, Any]) -> str:
    """Its rows, and below them the reason of each that has one."""
    lines = [
        f"{answer['name']}: commit {answer['commit']}, seed {answer['seed']}; {answer['machine']}",
        "",
        "| what | ours | peer | ratio | quartiles | aim | met |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    named: dict[str, list[str]] = {}
    for row in answer["rows"]:
        if row["reason"]:
            named.setdefault(row["reason"], []).append(row["name"])
        figures = [_figure(row["ours"], row["unit"]), _figure(row["peer"], row["unit"]), _figure(row["ratio"])]
        spread = f"{row['spread'][0]:.2g} to {row['spread'][1]:.2g}" if row["spread"] else ""
        met = {True: "yes", False: "no", None: "not known" if row["aim"] else ""}[row["met"]]
        lines.append("| " + " | ".join([row["name"], *figures, spread, row["aim"] or "", met]) + " |")
    return "\n".join([*lines, "", *(f"- {', '.join(names)}: {reason}" for reason, names in named.items())])


def _figure(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g} {unit}".rstrip()
