"""P7: adversarial attacks, all seeds and members at once, beside the published recipe: one seed at a time, the members looped.

Both climb log sigma_F^2 - E_mean / kT of the campaign's own network by Adam, through the double backward pass, from the same
seeds, in float32 on one thread. The recipe (Schwalbe-Koda et al. 2021) asks one member after the other for the forces of one
geometry, then takes one gradient. Its time is that of one seed, times the number of seeds: it does the same for each. Both take
fewer steps here than a campaign's 60; each step costs the same, and no attack ends early. Times are seconds of the one core,
which are those of the clock where nothing else runs.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from alloop.committee.committee import Committee
from alloop.committee.disagreement import force_variance
from alloop.posterior.run import one_thread
from alloop.proposal_sections import AttackConfig
from alloop.proposals.adversarial import attack
from alloop.rng import numpy_stream
from alloop.sections import ModelConfig
from alloop.structures.structure import Structure
from benchmarks.harness import Aim, Options, Row, answer, compare, counted, interleaved, needs_gpu
from benchmarks.systems import frames_of, problem

TITLE = "adversarial attacks, all seeds at once, beside one seed at a time (P7)"
SEED = 1
SEEDS, MEMBERS, STEPS = 64, 8, 4
CAMPAIGN_STEPS = 60
EIGHT_TIMES = Aim(1 / 8, "<= 0.125 (8x faster)")
SHARED = "seconds of the core; other work was running on this machine, so only the ratio counts"


def run(options: Options) -> dict[str, Any]:
    """Ethanol with the campaign's own network, l = 2, and what a gradient costs beside the forces."""
    with one_thread():
        rows = _rows(options)
    return answer("attacks", SEED, [*rows, needs_gpu("64 seeds on a GPU / one at a time", "<= 0.002 (500x faster)")], options)


def _rows(options: Options) -> list[Row]:
    frames, model = frames_of("ethanol", SEED, options.data), options.model(ModelConfig())
    task = problem(frames, model, chains=MEMBERS, batch=1, seed=SEED)
    committee = Committee(task.potential, task.parameters)
    count = 4 if options.quick else SEEDS
    seeds = [frames[index % len(frames)].structure for index in range(count)]
    config = AttackConfig(steps=STEPS, patience=STEPS)
    batch = committee.batch(seeds[: max(count // 8, 1)]).without_zero_shifts()
    contestants: dict[str, Callable[[], object]] = {
        "together": lambda: attack(committee, seeds, config, seed=SEED, round=0),
        "one": lambda: one_at_a_time(committee, seeds[:1], config),
        "cheap": lambda: attack(
            committee, seeds, config.model_copy(update={"objective": "energy_variance"}), seed=SEED, round=0
        ),
        "forces": lambda: committee.potential(committee.parameters, batch),
    }
    times = interleaved(contestants, pairs=options.pairs, clock=time.process_time)
    loop = [count * each for each in times["one"]]
    forces = [STEPS * count / batch.n_structures * each for each in times["forces"]]
    size = f"{count} seeds x {MEMBERS} members x {STEPS} steps"
    together = compare(f"{size}: together / one seed at a time", times["together"], loop, EIGHT_TIMES, reason=SHARED)
    return [
        together,
        compare(f"{size}: force variance / forces alone", times["together"], forces, None),
        compare(f"{size}: energy variance / forces alone", times["cheap"], forces, None),
        _rate(together, count),
    ]


def _rate(row: Row, count: int) -> Row:
    """Proposals a second and core, of attacks of 60 steps."""
    assert row.ours is not None
    assert row.peer is not None
    ours, peer = (count / (each * 1e-3 * CAMPAIGN_STEPS / STEPS) for each in (row.ours, row.peer))
    return counted(f"attacks of {CAMPAIGN_STEPS} steps a second", ours, peer, "1/s")


def one_at_a_time(committee: Committee, seeds: list[Structure], config: AttackConfig) -> list[torch.Tensor]:
    """The published recipe; displacements [1, A, 3] of each seed."""
    generator, found = numpy_stream(SEED, "attack", 0, 0), []
    for seed in seeds:
        batch = committee.batch([seed]).without_zero_shifts()
        noise = generator.normal(0.0, 0.01, size=tuple(batch.positions.shape))
        delta = torch.as_tensor(noise, dtype=batch.positions.dtype).requires_grad_()
        optimizer = torch.optim.Adam([delta], lr=config.learning_rate_angstrom)
        for _ in range(config.steps):
            moved = batch.moved(batch.positions + delta)
            members = [committee.potential(each[None], moved, differentiable=True) for each in committee.parameters]
            forces = torch.cat([each.forces for each in members if each.forces is not None])
            energy = torch.cat([each.energy for each in members]).mean(0)
            objective = force_variance(forces, batch).log() - energy / config.thermal_energy_ev
            optimizer.zero_grad()
            (-objective.sum()).backward()
            optimizer.step()
            with torch.no_grad():
                delta.clamp_(-config.clamp_angstrom, config.clamp_angstrom)
        found.append(delta.detach())
    return found
