"""Does a prior learned from xTB labels save DFT labels? On ethanol: GFN2-xTB is cheap, rMD17 (PBE/def2-SVP) expensive.

    ALLOOP_DATA=folder python -m benchmarks.multifidelity --folder multifidelity --splits 1 2

Posteriors of the same network in the same steps are drawn on n expensive labels: under N(0, I), and under N(theta_k, tau^2 I)
around the samples of a posterior on cheap labels of other frames. The error is that of the committee mean on held-out frames.
Everything done is kept in `--folder`: an interrupted run goes on where it was.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alloop.files import write_atomically
from alloop.labels.label import Label, LabelRequest
from alloop.labels.level_of_theory import TbliteLevel
from alloop.posterior.prior import LearnedPrior
from alloop.posterior.run import SamplingJob
from alloop.structures.structure import Structure
from benchmarks.ethanol import HELD_OUT, MEV, MODEL, POOL, POSTERIOR, Frames, chosen, errors, frames_of, rms, sampled, seed_of
from labelers.isolate import LabelPool

CHEAP = 200  # labels of frames that no split chooses from
SIZES = (10, 20, 40)
TAUS = (0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True)
class Cell:
    """One posterior: `labels` expensive ones of a `split`; under N(0, I) where `tau` is None, then `longer`: the control, with
    the warm-up that the cheap posterior has."""

    labels: int
    tau: float | None
    split: int
    longer: bool = False

    @property
    def name(self) -> str:
        return f"split{self.split}-{self.labels}-" + ("normal" if self.tau is None else f"tau{self.tau:g}")

    @property
    def told(self) -> str:
        if self.tau is not None:
            return f"tau {self.tau:g}"
        return "N(0, I), longer" if self.longer else "N(0, I)"


def main() -> None:
    arguments = _arguments()
    folder = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    train, test = frames_of("train"), frames_of("test")
    cheap = _xtb(train.structures[POOL:][:CHEAP], folder / "cheap.npz")
    cheap_test = _xtb(test.structures[:HELD_OUT], folder / "cheap-test.npz")
    longer = POSTERIOR.model_copy(update={"warmup_steps": arguments.warmup or POSTERIOR.warmup_steps})
    ending = f"-warmup{arguments.warmup}" if arguments.warmup else ""
    job = SamplingJob(MODEL, longer, seed_of(0), 1)
    learned = sampled(folder, f"cheap{ending}", cheap.labeled(np.arange(CHEAP), "xtb"), job)
    print(f"GFN2-xTB against PBE: {MEV * rms(cheap_test.forces - test.forces[:HELD_OUT]):.1f} meV/Å")
    print("the cheap posterior against GFN2-xTB:", json.dumps(errors(learned, cheap_test)), flush=True)
    rows = [{"labels": 0, "prior": "the cheap posterior as it is", "split": None} | errors(learned, test)]
    for cell in _cells(arguments):
        prior = None
        if cell.tau is not None:
            source = {"from": "xtb", "labels": CHEAP} | ({"warmup": arguments.warmup} if arguments.warmup else {})
            prior = LearnedPrior(learned.samples, learned.model, cell.tau, source)
        job = SamplingJob(MODEL, longer if cell.longer else POSTERIOR, seed_of(cell.split), 1, None, prior)
        name = f"{cell.name}{ending}" if prior is not None or cell.longer else cell.name
        drawn = sampled(folder, name, chosen(train, cell.labels, cell.split), job)
        rows.append({"labels": cell.labels, "prior": cell.told, "split": cell.split} | errors(drawn, test))
        print(json.dumps(rows[-1]), flush=True)
    write_atomically(folder / "rows.json", (json.dumps(rows, indent=2) + "\n").encode())
    print("\n".join(_table(rows)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("multifidelity"), help="what is done is kept here")
    parser.add_argument("--splits", type=int, nargs="+", default=[1], help="choices of the expensive labels")
    parser.add_argument("--tau", type=float, nargs="+", default=list(TAUS), help="widths of the prior")
    parser.add_argument("--labels", type=int, nargs="+", default=list(SIZES), help="expensive ones, ascending")
    parser.add_argument("--warmup", type=int, default=0, help="steps of the cheap posterior's warm-up; 0: as of the others")
    return parser.parse_args()


def _cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """N(0, I) up to twice as many labels as the learned prior gets."""
    for split in arguments.splits:
        for labels in dict.fromkeys((*arguments.labels, 2 * arguments.labels[-1])):
            if arguments.warmup:
                yield Cell(labels, None, split, longer=True)
            yield Cell(labels, None, split)
            for tau in arguments.tau if labels in arguments.labels else ():
                yield Cell(labels, tau, split)


def _xtb(structures: list[Structure], file: Path) -> Frames:
    """GFN2-xTB labels, computed once."""
    if not file.exists():
        with LabelPool[int](1) as pool:
            outcomes = pool.map([LabelRequest(each, TbliteLevel()) for each in structures])
        labels = [outcome for outcome in outcomes if isinstance(outcome, Label)]
        assert len(labels) == len(structures), [outcome for outcome in outcomes if not isinstance(outcome, Label)]
        seconds = sum(label.cost_core_seconds for label in labels)
        print(f"{len(labels)} GFN2-xTB labels in {seconds:.1f} core-seconds", flush=True)
        np.savez(file, energies=[label.energy for label in labels], forces=np.stack([label.forces for label in labels]))
    with np.load(file) as data:
        return Frames(structures, data["energies"], data["forces"])


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: a line for each prior and split, a column for each number of expensive labels; and what half the labels do."""
    sizes = sorted({row["labels"] for row in rows})
    found = {(row["split"], row["prior"], row["labels"]): row["rmse"] for row in rows}
    yield "| split | prior | " + " | ".join(map(str, sizes)) + " |"
    yield "| --- " * (len(sizes) + 2) + "|"
    for split, prior in dict.fromkeys((row["split"], row["prior"]) for row in rows):
        cells = [found.get((split, prior, size)) for size in sizes]
        yield f"| {split or ''} | {prior} | " + " | ".join("" if cell is None else f"{cell:.1f}" for cell in cells) + " |"


if __name__ == "__main__":
    main()
