"""What is told while chains run."""

import numpy as np
import pytest

from alloop.posterior.live import SamplingProgress, Seen
from alloop.posterior.run import SamplingJob, sample_posterior
from alloop.posterior.schedules import Schedule
from alloop.sections import ModelConfig, PosteriorConfig
from alloop.training.training_set import TrainingSet
from benchmarks.systems import rattled

MODEL = ModelConfig(channels=4, layers=1, l_max=1, radial_hidden=(4,), readout_hidden=4, noise_hidden=(4,))
POSTERIOR = PosteriorConfig(
    samples=3, warmup_steps=4, mass_steps=4, sampling_steps=10, chains_at_once=2, batch_size=2, thinning=2
)


def test_what_is_seen_live_is_what_is_stored(tmp_path, monkeypatch):
    monkeypatch.setattr("alloop.posterior.resumable.STEPS_BETWEEN_REPORTS", 1)
    told, labels = [], TrainingSet(rattled("ethanol", 1).labeled(range(4), "frame"))
    job = SamplingJob(MODEL, POSTERIOR, seed=1, round=1)
    draws = sample_posterior(labels, job, processes=1, checkpoints=tmp_path, progress=told.append)
    assert [each.done for each in told] == sorted(each.done for each in told)
    assert told[0].kinetic_temperature is None, "nothing is drawn in the warm-up"
    assert told[0].r_hat is None
    assert told[-1].done == told[-1].total == 3 * Schedule(POSTERIOR).total
    assert told[-1].kinetic_temperature == pytest.approx(draws.health.kinetic_temperature)
    assert told[-1].r_hat == pytest.approx(draws.health.r_hat_log_posterior)


def test_groups_that_have_not_drawn_yet_are_left_out():
    drawn = Seen(9, np.ones(2), np.random.default_rng(0).normal(size=(2, 6)))
    assert SamplingProgress(1, 2, (Seen(3), drawn)).r_hat == SamplingProgress(1, 2, (drawn,)).r_hat
    assert SamplingProgress(1, 2, (Seen(3),)).r_hat is None
    assert SamplingProgress(1, 2, (Seen(9, np.ones(1), np.ones((1, 9))),)).r_hat is None, "one chain has none to agree with"
