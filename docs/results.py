"""Results in the README: recorded from finished demo runs as JSON, then filled in as a table. No number is typed by hand.

    python docs/results.py record demo/mixed-1 demo/random-1
    python docs/results.py fill
    python docs/results.py check

`record` reads the registries of finished runs and writes one file each into docs/results/. `fill` writes the table between the
markers of README.md. `check` says whether it is there as the files have it. Exit codes: 0 when all is well, 1 otherwise.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alloop.__about__ import __version__
from alloop.config import load_config
from alloop.files import write_atomically
from alloop.posterior.health import SamplerHealth, shown
from alloop.registry.registry import Registry
from alloop.report.data import gather
from alloop.report.summary import summary_values

HERE = Path(__file__).parent
BEGIN, END = "<!-- demo-results:begin -->", "<!-- demo-results:end -->"
DEMO = "ethanol"
NOTHING = "No runs are recorded yet."
HEAD = (
    "strategy",
    "seed",
    "labels",
    "rounds",
    "stopped by",
    "first force RMSE, meV/Å",
    "final force RMSE, meV/Å",
    "force MAE, meV/Å",
    "inside 95 %",
    "z std",
    "R-hat",
    "converged",
    "core-seconds",
)


def record(folder: Path, results: Path) -> Path:
    """Write what the campaign in `folder` came to. Its folder holds one campaign file, with the registry beside it."""
    (file,) = folder.glob("*.yaml")
    config = load_config(file)
    with Registry.open(file.with_suffix(".db")) as registry:
        values = summary_values(gather(registry, config.name))
    entry = {
        "campaign": config.name,
        "strategy": config.proposals.strategy,
        "seed": config.seed,
        "alloop": __version__,
        "summary": values,
    }
    path = results / f"{config.name}-{config.proposals.strategy}-{config.seed}.json"
    write_atomically(path, (json.dumps(entry, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return path


def table(results: Path, campaign: str = DEMO) -> str:
    """All recorded runs of a campaign, by strategy and seed."""
    recorded = [json.loads(path.read_text(encoding="utf-8")) for path in results.glob("*.json")]
    entries = [entry for entry in recorded if entry["campaign"] == campaign]
    if not entries:
        return NOTHING
    rows = [_row(entry) for entry in sorted(entries, key=lambda each: (each["strategy"], each["seed"]))]
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(entry: dict[str, Any]) -> Sequence[str]:
    summary = entry["summary"]
    first, last, health = summary["first"], summary["last"], summary["health"]
    return (
        entry["strategy"],
        str(entry["seed"]),
        str(summary["spending"]["labels"]),
        str(summary["rounds"]),
        summary["stop"] or "not stopped",
        _mev(first["force_rmse"]),
        _mev(last["force_rmse"]) + _between(last["force_rmse_interval"], 1000.0),
        _mev(last["force_mae"]),
        f"{100 * last['coverage_95']:.1f} %" + _between(last["coverage_95_interval"], 100.0),
        f"{last['z_std']:.2f}",
        shown(health["r_hat_forces"], 2),
        SamplerHealth.model_validate(health).verdict,
        f"{sum(summary['core_seconds'].values()):.0f}",
    )


def _mev(value: float) -> str:
    return f"{1000 * value:.1f}"


def _between(interval: Sequence[float] | None, factor: float) -> str:
    return "" if interval is None else f" ({factor * interval[0]:.1f} to {factor * interval[1]:.1f})"


def filled(page: str, content: str) -> str:
    """`page` with `content` between the markers."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main(
    arguments: list[str],
    *,
    readme: Path = HERE.parent / "README.md",
    results: Path = HERE / "results",
    campaign: str = DEMO,
) -> int:
    match arguments:
        case ["record", *folders] if folders:
            for folder in folders:
                print(f"wrote {record(Path(folder), results)}")
        case ["fill"]:
            write_atomically(readme, filled(readme.read_text(encoding="utf-8"), table(results, campaign)).encode())
            print(f"filled {readme.name}")
        case ["check"]:
            page = readme.read_text(encoding="utf-8")
            if page != filled(page, table(results, campaign)):
                print("README.md has another table than docs/results/: run `python docs/results.py fill`", file=sys.stderr)
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
