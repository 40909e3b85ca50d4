"""Evaluation frames: dynamics under the true labeler, made once at the beginning, in worker processes."""

from collections.abc import Sequence

from alloop.config import CampaignConfig
from alloop.errors import ConfigError
from alloop.labels.level_of_theory import TbliteLevel
from alloop.proposals.proposal import Proposal, Strategy
from alloop.rng import stream_seed
from alloop.structures.structure import Structure
from alloop.structures.systems import in_turn, system_of
from alloop.training.training_set import Purpose
from flows.progress import Step
from flows.settings import Settings
from labelers.dynamics import Dynamics
from labelers.isolate import LabelPool

EQUILIBRATION_FS = 250.0


def trajectories(config: CampaignConfig, start: Sequence[Structure]) -> list[Dynamics]:
    """The trajectories that the evaluation frames are taken from; each has a random stream of its own, and each system one or
    more."""
    evaluation, start = config.evaluation, in_turn(start)
    systems = len({system_of(each) for each in start})
    count = min(max(evaluation.trajectories, systems), evaluation.frames)
    level = config.labeler if evaluation.dynamics == "labeler" else TbliteLevel()
    return [
        Dynamics(
            structure=start[index % len(start)],
            level=level,
            temperature_kelvin=evaluation.temperature_kelvin,
            timestep_fs=evaluation.timestep_fs,
            friction_per_fs=config.proposals.dynamics.friction_per_fs,
            frames=evaluation.frames // count + (index < evaluation.frames % count),
            spacing_fs=evaluation.spacing_fs,
            equilibration_fs=EQUILIBRATION_FS,
            seed=stream_seed(config.seed, "evaluation", index),
        )
        for index in range(count)
    ]


def evaluation_proposals(config: CampaignConfig, start: Sequence[Structure], settings: Settings, voice: Step) -> list[Proposal]:
    """The frames as proposals. Raises `ConfigError` where the dynamics cannot be computed."""
    jobs = trajectories(config, start)
    if not jobs:
        return []
    gradients = round(sum(job.equilibration_fs + job.frames * job.spacing_fs for job in jobs) / config.evaluation.timestep_fs)
    voice.say(f"dynamics of {config.evaluation.frames} evaluation frames: {gradients} gradients, {jobs[0].level}")
    proposals: list[Proposal] = []
    with LabelPool[int](min(settings.label_workers, len(jobs))) as pool:
        for index, frames in enumerate(pool.map(jobs)):
            if not isinstance(frames, list):
                raise ConfigError(
                    "evaluation dynamics that can be computed",
                    getattr(frames, "message", "a label instead of frames"),
                    "lower `evaluation.temperature_kelvin` or `evaluation.timestep_fs`, or relax the start structure",
                )
            proposals += [_proposal(jobs[index], index, number, frame) for number, frame in enumerate(frames, start=1)]
            voice.advance(len(proposals), config.evaluation.frames, "evaluation dynamics")
    return proposals


def _proposal(job: Dynamics, trajectory: int, number: int, frame: Structure) -> Proposal:
    why = {
        "trajectory": trajectory,
        "time_fs": job.equilibration_fs + number * job.spacing_fs,
        "temperature_kelvin": job.temperature_kelvin,
        "level": str(job.level),
    }
    return Proposal(frame, Strategy.LABELER_DYNAMICS, Purpose.EVALUATION, parent_id=job.structure.structure_id, why=why)
