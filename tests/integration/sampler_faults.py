"""A program for the test beside it: samplers killed at random moments, at every stage of a step and of a checkpoint.

    python sampler_faults.py KILLS SEED

Prints JSON: how many were `killed`, how many runs `ended`, whether all were `equal` bit for bit to an undisturbed one, how many
kills fell between two generations of a checkpoint (`torn`), and into how many different `steps`. It imports once and forks, so
that a death costs milliseconds. Every step writes a checkpoint.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from alloop.posterior import resumable, run
from alloop.posterior.live import SamplingProgress
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose, TrainingSet

WATER = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
MODEL = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(8,), readout_hidden=4, noise_hidden=(4,))
POSTERIOR = PosteriorConfig(
    samples=2, warmup_steps=15, mass_steps=10, sampling_steps=25, batch_size=2, thinning=5, step_size="auto"
)


def labels() -> TrainingSet:
    """Water on a harmonic surface."""
    items = []
    for index in range(4):
        shift = np.random.default_rng(index).normal(0, 0.05, (3, 3))
        structure = Structure.molecule([8, 1, 1], WATER + shift)
        items.append(LabeledStructure(f"{index}", structure, float(10 * (shift**2).sum()), -20 * shift, None, Purpose.TRAIN))
    return TrainingSet(tuple(items))


def sample(folder: Path) -> None:
    """To the end, from what the folder holds; the parameters go to a file there, and each step to another."""

    def told(progress: SamplingProgress) -> None:
        (folder / "steps").write_text(str(progress.done))

    draws = sample_posterior(labels(), SamplingJob(MODEL, POSTERIOR, 7, 1), processes=1, checkpoints=folder, progress=told)
    np.save(folder / "parameters.npy", np.stack([each.parameters for each in draws.samples]))


def forked(folder: Path) -> int:
    """A process that samples in `folder`."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sample(folder)
            code = 0
        finally:
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    return child


def main(kills: int, seed: int) -> dict[str, object]:
    """See above."""
    torch.set_num_threads(1)
    run.CHECKPOINT_SECONDS, resumable.STEPS_BETWEEN_REPORTS = 0.0, 1
    moments = random.Random(seed)
    killed, ended, torn, equal, steps = 0, 0, 0, True, set()
    with TemporaryDirectory() as top:
        undisturbed = Path(top, "undisturbed")
        undisturbed.mkdir()
        started = time.monotonic()
        assert os.waitstatus_to_exitcode(os.waitpid(forked(undisturbed), 0)[1]) == 0
        seconds = time.monotonic() - started
        expected = (undisturbed / "parameters.npy").read_bytes()
        while killed < kills:
            folder = Path(top, f"run-{ended}")
            folder.mkdir()
            while True:
                child = forked(folder)
                time.sleep(moments.uniform(0.0, 0.5 * seconds) if killed < kills else 2 * seconds)
                if killed < kills:
                    os.kill(child, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                if code == 0:
                    break
                assert code == -signal.SIGKILL, f"a sampler failed with {code}"
                killed += 1
                steps.add((folder / "steps").read_text() if (folder / "steps").exists() else "0")
                newest, before = folder / "chains-0", folder / "chains-0.previous"
                torn += before.exists() and not newest.exists()
            ended += 1
            equal = equal and (folder / "parameters.npy").read_bytes() == expected
    return {"killed": killed, "ended": ended, "equal": equal, "torn": torn, "steps": len(steps)}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
