"""The probe: committee dynamics from fixed starts and seeds, made anew each round; what the plateau rule reads (method 5.5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from alloop.committee.committee import Committee
from alloop.proposal_sections import ProposalConfig
from alloop.proposals.dynamics import Trajectory, run_dynamics
from alloop.proposals.probe_report import Probe
from alloop.proposals.screen import screen
from alloop.structures.structure import Structure
from alloop.structures.systems import system_of
from alloop.training.training_set import TrainingSet

FRAMES_PER_TRAJECTORY = 20


@dataclass(frozen=True)
class ProbeResult:
    """The figures of the probe and the trajectories they come from, which are also a pool of candidates."""

    report: Probe
    trajectories: tuple[Trajectory, ...]


def probe(
    committee: Committee,
    starts: Sequence[Structure],
    config: ProposalConfig,
    *,
    reactions: bool,
    labels: TrainingSet,
    seed: int,
) -> ProbeResult:
    """Run `config.dynamics.trajectories`, the starts taken in turn; the streams of `seed` are the same in each round.

    A trajectory is stable when every frame passes the physical screen; energies are judged beside `labels`.
    """
    chosen = [starts[index % len(starts)] for index in range(config.dynamics.trajectories)]
    frames = min(FRAMES_PER_TRAJECTORY, config.dynamics.trajectory_steps)
    trajectories = run_dynamics(committee, chosen, config.dynamics, seed=seed, frames=frames)
    report = Probe(
        sigmas_ev_per_angstrom=tuple(tuple(float(sigma) for sigma in each.sigmas) for each in trajectories),
        total_sigmas_ev_per_angstrom=tuple(tuple(float(sigma) for sigma in each.total_sigmas) for each in trajectories),
        stable=tuple(_is_stable(each, config, reactions, labels) for each in trajectories),
        systems=tuple(system_of(each.start) for each in trajectories),
    )
    return ProbeResult(report, tuple(trajectories))


def _is_stable(trajectory: Trajectory, config: ProposalConfig, reactions: bool, labels: TrainingSet) -> bool:
    if not trajectory.finite:
        return False
    return all(
        screen(
            frame,
            start=trajectory.start,
            predicted_energy_above_lowest_ev_per_atom=labels.above_lowest(frame, float(energy)),
            sigma=None,
            config=config,
            reactions=reactions,
        )
        is None
        for frame, energy in zip(trajectory.frames, trajectory.energies, strict=True)
    )
