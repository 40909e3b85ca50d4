"""The posterior and its baselines on one training set: the same network, the same gradients, the same frames.

    ALLOOP_DATA=folder python -m benchmarks.baselines --seeds 1

The folder of ALLOOP_DATA holds rMD17 ethanol as `rmd17_ethanol_split01.npz` (Christensen and von Lilienfeld 2020). A seed
chooses the frames and all random streams. Prints a line of JSON for each method and seed, then a table in Markdown.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np

from alloop.committee.assess import assess
from alloop.committee.calibration import fit_calibration
from alloop.committee.committee import Committee
from alloop.committee.evaluation import EvaluationArrays
from alloop.posterior.run import PosteriorDraws, SamplingJob, sample_posterior
from alloop.rng import numpy_stream
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet
from benchmarks.frames import ethanol

COUNTS = {Purpose.TRAIN: 60, Purpose.CALIBRATION: 20, Purpose.EVALUATION: 100}
MODEL = ModelConfig(channels=16)
POSTERIOR = PosteriorConfig(samples=4, chains_at_once=4, warmup_steps=1000, mass_steps=200, sampling_steps=300)
METHODS = get_args(PosteriorConfig.model_fields["method"].annotation)
MEV = 1000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the choice of frames and of the random streams")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="only these")
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        frames = _frames(seed)
        for method in arguments.methods:
            rows.append({"method": method, "seed": seed} | _figures(_drawn(frames, method, seed), frames, seed))
            print(json.dumps(rows[-1]), flush=True)
    print("\n".join(_table(rows)))


def _frames(seed: int) -> dict[Purpose, tuple[LabeledStructure, ...]]:
    """Frames of each purpose, chosen at random: those to learn and calibrate from among the training frames of the split, those
    to measure on from among its test frames."""
    generator, held = numpy_stream(seed, "frames"), {part: ethanol(part) for part in ("train", "test")}
    order = {part: generator.permutation(len(frames.structures)) for part, frames in held.items()}
    found = {}
    for purpose, count in COUNTS.items():
        part = "test" if purpose is Purpose.EVALUATION else "train"
        chosen, order[part] = order[part][:count], order[part][count:]
        found[purpose] = held[part].labeled(chosen, part, purpose)
    return found


def _drawn(frames: dict[Purpose, tuple[LabeledStructure, ...]], method: str, seed: int) -> PosteriorDraws:
    job = SamplingJob(MODEL, POSTERIOR.model_copy(update={"method": method}), seed, round=1)
    with tempfile.TemporaryDirectory() as folder:
        training_set = TrainingSet(frames[Purpose.TRAIN])
        return sample_posterior(training_set, job, processes=1, checkpoints=Path(folder), progress=lambda _: None)


def _figures(draws: PosteriorDraws, frames: dict[Purpose, tuple[LabeledStructure, ...]], seed: int) -> dict[str, Any]:
    """Errors in meV/Å; of the committee mean and, on average, of its members. `scale` is what calibration multiplied by."""
    committee = Committee.load(draws.model, draws.samples)

    def predicted(purpose: Purpose) -> EvaluationArrays:
        return EvaluationArrays.of(frames[purpose], committee.predict([item.structure for item in frames[purpose]]))

    calibration = fit_calibration(predicted(Purpose.CALIBRATION))
    measured = predicted(Purpose.EVALUATION)
    metrics = assess(measured, calibration, seed=seed)
    return {
        "force_rmse": MEV * metrics.force_rmse,
        "coverage_95": metrics.coverage_95,
        "coverage_95_interval": metrics.coverage_95_interval,
        "z_std": metrics.z_std,
        "correlation": metrics.error_correlation,
        "gain": metrics.log_likelihood_gain,
        "scale": calibration.force_scale,
        "epistemic": MEV * float(np.sqrt(measured.force_epistemic_var.mean())),
        "aleatoric": MEV * float(np.sqrt(measured.force_aleatoric_var.mean())),
        "gradients": draws.health.gradient_evaluations,
        "core_seconds": draws.core_seconds,
        "health": draws.health.sentence,
    }


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    head = ("method", "seed", "force RMSE, meV/Å", "inside 95 %", "z std", "rank correlation", "gain, nats", "σ scaled by")
    head = (*head, "spread, meV/Å", "noise, meV/Å", "core-seconds")
    yield f"| {' | '.join(head)} |"
    yield "| --- " * len(head) + "|"
    for row in rows:
        low, high = row["coverage_95_interval"]
        cells = (
            f"`{row['method']}`",
            str(row["seed"]),
            f"{row['force_rmse']:.1f}",
            f"{100 * row['coverage_95']:.1f} % ({100 * low:.1f} to {100 * high:.1f})",
            f"{row['z_std']:.2f}",
            f"{row['correlation']:.2f}",
            f"{row['gain']:+.2f}",
            f"{row['scale']:.2f}",
            f"{row['epistemic']:.1f}",
            f"{row['aleatoric']:.1f}",
            f"{row['core_seconds']:.0f}",
        )
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
