"""Does a prior learned from xTB labels save DFT labels? On ethanol: GFN2-xTB is cheap, rMD17 (PBE/def2-SVP) expensive.

    ALLOOP_DATA=folder python -m benchmarks.multifidelity --folder multifidelity --splits 1 2

The folder of ALLOOP_DATA holds rMD17 ethanol as `rmd17_ethanol_split01.npz` (Christensen and von Lilienfeld 2020). Posteriors
of the same network in the same steps are drawn on n expensive labels: under N(0, I), and under N(theta_k, tau^2 I) around the
samples of a posterior on cheap labels of other frames. The error is that of the committee mean on held-out frames.
Everything done is kept in `--folder`: an interrupted run goes on where it was.
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alloop.committee.committee import Committee
from alloop.config import ModelConfig, PosteriorConfig
from alloop.digests import digest_json
from alloop.files import write_atomically
from alloop.labels.label import Label, LabelRequest
from alloop.labels.level_of_theory import TbliteLevel
from alloop.posterior.prior import LearnedPrior
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.posterior.sample import PosteriorSample
from alloop.registry.posteriors import parameters_file, read_parameters
from alloop.rng import numpy_stream, stream_seed
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from alloop.units import EV_PER_KCAL_PER_MOL
from labelers.isolate import LabelPool

SET = "rmd17_ethanol_split01.npz"
CHEAP, HELD_OUT = 200, 200
NEVER_EXPENSIVE = 800  # of the 1,000 training frames, those from here on get cheap labels only
SIZES = (10, 20, 40)
TAUS = (0.05, 0.1, 0.2, 0.5)
SEED = 1
MODEL = ModelConfig(channels=16)
POSTERIOR = PosteriorConfig(samples=4, chains_at_once=4, warmup_steps=1000, mass_steps=200, sampling_steps=300)
MEV = 1000.0


@dataclass(frozen=True)
class Frames:
    """Structures with energies [S] eV and forces [S, A, 3] eV/Å."""

    structures: list[Structure]
    energies: NDArray[np.float64]
    forces: NDArray[np.float64]

    def labeled(self, indices: NDArray[np.int64], level: str) -> TrainingSet:
        items = [
            LabeledStructure(f"{level}-{i}", self.structures[i], float(self.energies[i]), self.forces[i], None, Purpose.TRAIN)
            for i in indices
        ]
        return TrainingSet(tuple(items))


@dataclass(frozen=True)
class Drawn:
    """A posterior: `parameters` [K, P], their model and health as JSON, and what they cost."""

    parameters: NDArray[np.float32]
    model: dict[str, Any]
    health: dict[str, Any]
    core_seconds: float

    @property
    def samples(self) -> tuple[PosteriorSample, ...]:
        return tuple(PosteriorSample(each, chain, 0, 0.0) for chain, each in enumerate(self.parameters))


@dataclass(frozen=True)
class Cell:
    """One posterior: `labels` expensive ones of a `split`; under N(0, I) where `tau` is None."""

    labels: int
    tau: float | None
    split: int

    @property
    def name(self) -> str:
        return f"split{self.split}-{self.labels}-" + ("normal" if self.tau is None else f"tau{self.tau:g}")


def main() -> None:
    arguments = _arguments()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with np.load(Path(os.environ["ALLOOP_DATA"]) / SET) as data:
        train, test = _frames(data, "train"), _frames(data, "test")
    cheap = _xtb(train.structures[NEVER_EXPENSIVE:][:CHEAP], arguments.folder / "cheap.npz")
    cheap_test = _xtb(test.structures[:HELD_OUT], arguments.folder / "cheap-test.npz")
    learned = _sampled(arguments.folder, "cheap", cheap.labeled(np.arange(CHEAP), "xtb"), prior=None)
    print(f"GFN2-xTB against PBE: {MEV * _rms(cheap_test.forces - test.forces[:HELD_OUT]):.1f} meV/Å")
    print("the cheap posterior against GFN2-xTB:", json.dumps(_errors(learned, cheap_test)), flush=True)
    rows = [{"labels": 0, "prior": "the cheap posterior as it is", "split": None} | _errors(learned, test)]
    for cell in _cells(arguments):
        chosen = numpy_stream(SEED, "split", cell.split).permutation(NEVER_EXPENSIVE)[: cell.labels]
        prior = None
        if cell.tau is not None:
            prior = LearnedPrior(learned.samples, learned.model, cell.tau, {"from": "xtb", "labels": CHEAP})
        draws = _sampled(arguments.folder, cell.name, train.labeled(chosen, "pbe"), prior=prior, stream=cell.split)
        told = "N(0, I)" if cell.tau is None else f"tau {cell.tau:g}"
        rows.append({"labels": cell.labels, "prior": told, "split": cell.split} | _errors(draws, test))
        print(json.dumps(rows[-1]), flush=True)
    write_atomically(arguments.folder / "rows.json", (json.dumps(rows, indent=2) + "\n").encode())
    print("\n".join(_table(rows)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("multifidelity"), help="what is done is kept here")
    parser.add_argument("--splits", type=int, nargs="+", default=[1], help="choices of the expensive labels")
    parser.add_argument("--tau", type=float, nargs="+", default=list(TAUS), help="widths of the prior")
    parser.add_argument("--labels", type=int, nargs="+", default=list(SIZES), help="expensive ones, ascending")
    return parser.parse_args()


def _cells(arguments: argparse.Namespace) -> Iterator[Cell]:
    """N(0, I) up to twice as many labels as the learned prior gets."""
    for split in arguments.splits:
        for labels in dict.fromkeys((*arguments.labels, 2 * arguments.labels[-1])):
            yield Cell(labels, None, split)
            for tau in arguments.tau if labels in arguments.labels else ():
                yield Cell(labels, tau, split)


def _frames(data: Any, part: str) -> Frames:
    structures = [Structure.molecule(data["z"], positions) for positions in data[f"R_{part}"]]
    return Frames(structures, data[f"E_{part}"] * EV_PER_KCAL_PER_MOL, data[f"F_{part}"] * EV_PER_KCAL_PER_MOL)


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


def _sampled(folder: Path, name: str, labels: TrainingSet, *, prior: LearnedPrior | None, stream: int = 0) -> Drawn:
    """The posterior of this name: from its file, or drawn now, from its checkpoint if it was interrupted."""
    file = folder / f"{name}.json"
    job = SamplingJob(MODEL, POSTERIOR, stream_seed(SEED, "split", stream) % 2**31, 1, None, prior)
    identity = digest_json(
        [labels.digest, MODEL.model_dump(mode="json"), POSTERIOR.model_dump(mode="json"), prior and prior.digest]
    )
    if file.exists() and json.loads(file.read_text())["identity"] == identity:
        facts = json.loads(file.read_text())
        return Drawn(
            read_parameters(file.with_suffix(".safetensors").read_bytes()),
            facts["model"],
            facts["health"],
            facts["core_seconds"],
        )
    draws = sample_posterior(labels, job, processes=1, checkpoints=folder / f"{name}.checkpoints", progress=lambda _: None)
    drawn = Drawn(
        np.stack([sample.parameters for sample in draws.samples]),
        draws.model,
        draws.health.model_dump(mode="json"),
        draws.core_seconds,
    )
    write_atomically(file.with_suffix(".safetensors"), parameters_file(drawn.samples))
    facts = {"identity": identity, "model": drawn.model, "health": drawn.health, "core_seconds": drawn.core_seconds}
    write_atomically(file, json.dumps(facts).encode())
    return drawn


def _errors(drawn: Drawn, test: Frames) -> dict[str, Any]:
    """On the first held-out frames: force RMSE of the committee mean, and of its members on average, meV/Å."""
    predicted = Committee.load(drawn.model, drawn.samples).predict(test.structures[:HELD_OUT])
    truth = test.forces[:HELD_OUT]
    members = np.stack(predicted.member_forces)  # [S, K, A, 3]
    return {
        "rmse": MEV * _rms(np.stack(predicted.forces) - truth),
        "members": MEV * float(np.mean([_rms(members[:, k] - truth) for k in range(members.shape[1])])),
        "r_hat": drawn.health["r_hat_forces"],
        "kinetic": drawn.health["kinetic_temperature"],
        "core_seconds": drawn.core_seconds,
    }


def _rms(differences: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(differences**2)))


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
