"""Attacks as proposals: which structures are attacked, and what is told of each attack afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from alloop.proposal_sections import AttackConfig
from alloop.proposals.adversarial import Attack
from alloop.proposals.attack_coordinates import measured
from alloop.proposals.proposal import Proposal, Rejection, Strategy
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose

PATH_FRAMES, LEAST_FRAMES = 12, 2
PATH_ATOMS = PATH_FRAMES * 20  # in all frames together, so that a path stays below 10 kB
POSITION_DECIMALS, SIGMA_DECIMALS, ENERGY_DECIMALS = 4, 5, 4


def attack_seeds(
    sources: Mapping[str, Sequence[Structure]], config: AttackConfig, generator: np.random.Generator
) -> list[Structure]:
    """At most `config.seeds` different structures: the sources of `config.seeds_from` in turn, each in random order."""
    queues = [[sources[name][index] for index in generator.permutation(len(sources[name]))] for name in config.seeds_from]
    chosen: dict[Structure, None] = {}
    for turn in range(max(map(len, queues))):
        chosen |= {queue[turn]: None for queue in queues if turn < len(queue)}
    return list(chosen)[: config.seeds]


def references(seeds: Sequence[Structure], starts: Sequence[Structure]) -> list[Structure]:
    """For each seed the first start structure of the same atoms, whose bonds are not stretched; itself where there is none."""
    return [next((start for start in starts if np.array_equal(start.numbers, seed.numbers)), seed) for seed in seeds]


def plausibility(energy_ev: float, structure: Structure, labeled: Sequence[LabeledStructure], kt_ev: float) -> dict[str, float]:
    """Energy above the lowest label of the same composition, and p = exp(-E / kT) / Q with Q the sum over these labels
    (method 4.1)."""
    formula = sorted(structure.atom_types)
    energies = np.array([each.energy for each in labeled if sorted(each.structure.atom_types) == formula])
    if not len(energies):
        return {}
    lowest = energies.min()
    exponents = np.minimum(-(np.array([energy_ev, *energies]) - lowest) / kt_ev, 700.0)  # exp overflows above 709
    weights = np.exp(exponents)
    return {"energy_above_lowest_ev": float(energy_ev - lowest), "boltzmann_weight": float(weights[0] / weights[1:].sum())}


def proposal_of(attack: Attack, config: AttackConfig, labeled: Sequence[LabeledStructure]) -> Proposal:
    """The end of an attack, with the sigma along the way; one that never saw a sound geometry is rejected."""
    sound = len(attack.sigmas) > 0
    energy = float(attack.energies[-1]) if sound else None
    why: dict[str, Any] = {
        "predicted_energy_ev": energy,
        "objective": config.objective,
        "steps": attack.steps,
        "restarts": attack.restarts,
        "outcome": attack.outcome.name.lower(),
        "sigma_path_ev_per_angstrom": _rounded(attack.sigmas, SIGMA_DECIMALS),
    }
    if energy is not None:
        why |= plausibility(energy, attack.end, labeled, config.thermal_energy_ev)
    return Proposal(
        structure=attack.end,
        strategy=Strategy.ADVERSARIAL,
        purpose=Purpose.TRAIN,
        score=float(attack.sigmas[-1]) if sound else None,
        rejection=None if sound else Rejection.FAILED,
        parent_id=attack.seed.structure_id,
        why=why,
    )


def with_path(proposal: Proposal, attack: Attack, config: AttackConfig) -> Proposal:
    """An accepted proposal with what the report shows of its attack: some geometries on the way (positions in Å of the steps
    `path_steps`), the energies, and where declared variables and the strain went. A rejected one as it is."""
    if proposal.rejection is not None:
        return proposal
    count = len(attack.sigmas)
    frames = min(max(PATH_ATOMS // attack.seed.n_atoms, LEAST_FRAMES), PATH_FRAMES)
    steps = np.unique(np.linspace(0, count - 1, frames).round().astype(int))
    told: dict[str, Any] = {
        "path_steps": steps.tolist(),
        "path_positions_angstrom": [_rounded(attack.positions[step], POSITION_DECIMALS) for step in steps],
        "energy_path_ev": _rounded(attack.energies, ENERGY_DECIMALS),
    }
    if config.variables:
        told["variables"] = {
            each.label: [round(measured(structure, each.kind, each.atoms), 3) for structure in (attack.seed, attack.end)]
            for each in config.variables
        }
    if config.strain:
        strain = np.linalg.solve(attack.seed.cell, attack.end.cell) - np.eye(3)
        told["strain"] = _rounded(strain, SIGMA_DECIMALS)
    return replace(proposal, why={**proposal.why, **told})


def _rounded(values: np.ndarray, decimals: int) -> list[Any]:
    return np.round(np.asarray(values, dtype=float), decimals).tolist()
