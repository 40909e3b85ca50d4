"""What the studies cost: gradients, time, and effective samples a second, of all posteriors that were recorded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alloop.posterior.health import shown
from benchmarks.harness import ROOT, Options, answer, counted

TITLE = "what the recorded studies cost; nothing is measured anew"
RESULTS = ROOT / "benchmarks" / "results"
NAME = "cost"
HEAD = ("study", "posterior", "gradients", "wall minutes", "core-minutes", "ESS of forces", "ESS a second", "machine")
PAPER = ("Rensmeyer et al. 2024", "8 samples, one chain, rMD17", "not found", "“a few days”", "", "", "", "one GPU, not named")
SECONDS_PER_MINUTE = 60.0


def run(options: Options) -> dict[str, Any]:
    """Effective samples a second of each recorded arm; nothing is measured anew."""
    rows = [counted(f"{each.study}: {each.arm}", each.rate, None, "/s") for each in _arms(RESULTS) if each.rate is not None]
    return answer(NAME, 1, rows, options)


def table(results: Path) -> str:
    """One line for each study and arm, means over its posteriors; beside them what the paper says."""
    lines = [HEAD, ["---"] * len(HEAD), PAPER, *(each.line for each in _arms(results))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass(frozen=True)
class Arm:
    """The posteriors of one arm of a study, as their figures."""

    study: str
    arm: str
    posteriors: list[dict[str, Any]]

    def mean(self, key: str) -> float | None:
        """Over those that have it."""
        known = [each[key] for each in self.posteriors if each.get(key) is not None]
        return sum(known) / len(known) if known else None

    @property
    def rate(self) -> float | None:
        """Effective samples a second of one core; None where there are no chains."""
        size, seconds = self.mean("ess_forces"), self.mean("sampling_core_seconds")
        return size / seconds if size is not None and seconds else None

    @property
    def line(self) -> tuple[str, ...]:
        """Of the table."""
        wall, core = (self.mean(f"sampling_{kind}_seconds") or 0.0 for kind in ("wall", "core"))
        return (
            self.study,
            self.arm,
            f"{self.mean('gradient_evaluations') or 0:,.0f}",
            f"{wall / SECONDS_PER_MINUTE:.1f}",
            f"{core / SECONDS_PER_MINUTE:.1f}",
            shown(self.mean("ess_forces"), 0),
            shown(self.rate, 3),
            self.posteriors[0]["machine"].split(", load")[0],
        )


def _arms(results: Path) -> list[Arm]:
    """Of all studies; cells that fill several lines have one posterior."""
    found = []
    for file in sorted(results.glob("*.json")):
        answer = json.loads(file.read_text(encoding="utf-8"))
        arms: dict[str, dict[str, dict[str, Any]]] = {}
        for each in answer.get("cells", ()):
            figures = each["figures"]
            if "posterior" in figures:
                of_arm = arms.setdefault(str(each["cell"].get("arm", "")), {})
                known = of_arm.get(figures["posterior"], figures)  # the line of the most samples
                of_arm[figures["posterior"]] = max(known, figures, key=lambda line: line["gradient_evaluations"])
        found += [Arm(answer["name"], arm, list(posteriors.values())) for arm, posteriors in arms.items()]
    return found
