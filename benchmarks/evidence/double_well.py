"""Two-dimensional double well (Schwalbe-Koda, Tan and Gómez-Bombarelli 2021, figure 2): adversarial against random sampling.

A loop starts from points of the left well alone. In each generation a committee learns all points, and new ones are labeled:
adversarial attacks on all points, trimmed as published; or random displacements. Those of the released code are uniform within
a cube about every point, and trimmed like attacks, so that the committee's variance chooses among them, too; the size of the
cube is an argument and not published: two are run. The others are paired with the attacks: as many, of the same lengths, and
from the same places, so that only the direction differs; or from points of the start, so that they do not drift. Energies have
the units of the paper.
Published: over 100 loops, random sampling ends with an RMSE about 3 times as large, though its points are more and of higher
energy (github.com/learningmatter-mit/Atomistic-Adversarial-Attacks, and its page of results). Their networks have 4 layers of
1024; ours have 3 of 32, a size for a CPU.

Paired steps that start from earlier random points, as attacks do from earlier attacks, drift up the walls; labels there, of
large forces, spoil the fit within the wells too. `by_generation` has the first generation, where nothing has drifted yet.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from alloop.rng import stream_seed
from benchmarks.evidence.small_nets import Committees, Fit, fitted
from benchmarks.evidence.study import Column, Comparison, Facts, Figures, Place, Results
from benchmarks.evidence.wells import (
    APART,
    AT_MOST,
    ATTACK_RATE,
    KT,
    NEAREST,
    PERCENTILE,
    Array,
    Loops,
    attacked,
    figures_of,
    region,
    started,
    with_attacks,
    with_random_steps,
)
from benchmarks.harness import Options, Row, judged

TITLE = "double well in two dimensions: adversarial against random sampling"
SEEDS = (1, 2)
HAS_FULL = True
FULL_SEEDS = tuple(range(1, 11))
LOOPS, GENERATIONS, ATTACK_STEPS = 10, 7, 600
ADVERSARIAL, RANDOM, FROM_START = "adversarial", "random", "random, from the start"
CUBES = {f"random, in a cube of ±{half:g}": half for half in (0.5, 1.0)}
ARMS = (ADVERSARIAL, RANDOM, FROM_START, *CUBES)
GROUP = ("arm",)
COLUMNS = (
    Column("rmse", "RMSE, median over loops"),
    Column("rmse_low", "lower quartile"),
    Column("rmse_high", "upper quartile"),
    Column("rmse_left", "RMSE, left well"),
    Column("rmse_right", "RMSE, right well"),
    Column("found", "second well found, % of loops", 0, 100.0),
    Column("in_right", "points in the right well", 1),
    Column("labels", "new labels", 1),
    Column("added_energy", "energy of new points", 2),
)
FIT = Fit(hidden=(32, 32, 32), members=5, steps=2400, batch_size=35, learning_rate=1e-2)
PUBLISHED_RATIO = 3.0
RESAMPLES = 2000


def settings(place: Place) -> Facts:
    """Networks, attacks and their trimming."""
    del place
    return {"fit": asdict(FIT), "attacks": [ATTACK_STEPS, ATTACK_RATE, AT_MOST, PERCENTILE, NEAREST, APART, KT]}


def cells(options: Options) -> list[Facts]:
    """Attacks before the random steps that are paired with them."""
    seeds = FULL_SEEDS if options.full else SEEDS[:1] if options.quick else SEEDS
    loops, generations = (3, 2) if options.quick else (LOOPS, GENERATIONS)
    return [{"arm": arm, "seed": seed, "loops": loops, "generations": generations} for arm in ARMS for seed in seeds]


def measure(cell: Facts, place: Place) -> Figures:
    """Medians over the loops of a cell at the end; each loop's own; medians by generation."""
    history = looped(cell, place)[1]
    ends = {name: values[-1] for name, values in history.items()}
    low, high = np.quantile(ends["rmse"], [0.25, 0.75])
    return {
        **{name: _typical(name, values).item() for name, values in ends.items()},
        "rmse_low": float(low),
        "rmse_high": float(high),
        "of_loops": {name: values.tolist() for name, values in ends.items()},
        "by_generation": {name: _typical(name, values).tolist() for name, values in history.items()},
    }


def looped(cell: Facts, place: Place) -> tuple[Loops, dict[str, Array]]:
    """All generations of a cell, and figures [generations + 1, L] of the committees; it goes on after those that were kept."""
    loops, history = _kept(cell, place)
    guide = looped(cell | {"arm": ADVERSARIAL}, place)[0] if cell["arm"] in (RANDOM, FROM_START) else None
    fit = replace(FIT, hidden=(8, 8), steps=100) if place.quick else FIT
    where = region()
    for generation in range(len(history.get("rmse", ())), cell["generations"] + 1):
        stream = _stream(cell, "networks", generation)
        committees = fitted(loops.labels(), fit, generator=stream, on_time=place.on_time)
        for name, values in figures_of(committees, loops, where).items():
            history[name] = np.concatenate([history.get(name, values[None][:0]), values[None]])
        if generation < cell["generations"]:
            loops = _grown(loops, guide, committees, cell, place, generation + 1)
        place.keep(cell, points=loops.points, born=loops.born, origins=loops.origins, **history)
    return loops, history


def rows(done: Results, beside: Sequence[Comparison]) -> list[Row]:
    """What was published of both arms, and whether it is so here."""
    ours, found = _of_loops(done, ADVERSARIAL), []
    for arm in ARMS[1:]:
        theirs = _of_loops(done, arm)
        ratio = float(np.median(theirs["rmse"]) / np.median(ours["rmse"]))
        share, peer_share = (float(np.mean(each["found"])) for each in (ours, theirs))
        row = judged(f"RMSE, {arm} / adversarial, of medians", ratio, PUBLISHED_RATIO, "", "published: about 3", met=False)
        reason = "the size of the published cube is not known" if arm in CUBES else "the published random arm is another one"
        found += [
            replace(row, met=None, reason=reason),
            judged(f"loops that found the second well, beside {arm}", share, peer_share, "", "above", share > peer_share),
        ]
    return [*found, *(each.row("below") for each in beside if each.figure == "rmse")]


def comparisons(done: Results, place: Place) -> list[Comparison]:
    """Of loops in pairs: the same start, as many labels."""
    del place
    ours, figures = _of_loops(done, ADVERSARIAL), ("rmse", "rmse_left", "rmse_right", "added_energy")
    name = f"medians over {len(ours['rmse'])} loops: {ADVERSARIAL} - "
    others = {arm: _of_loops(done, arm) for arm in ARMS[1:]}
    return [paired_medians(f"{name}{arm}", key, ours[key], theirs[key]) for arm, theirs in others.items() for key in figures]


def paired_medians(name: str, figure: str, ours: Array, theirs: Array) -> Comparison:
    """Medians over loops [L] and their difference, with its 95 % bootstrap interval: pairs of loops are drawn."""
    drawn = np.random.default_rng(0).integers(0, len(ours), (RESAMPLES, len(ours)))
    low, high = np.quantile(np.median(ours[drawn], axis=1) - np.median(theirs[drawn], axis=1), [0.025, 0.975])
    mine, other = float(np.median(ours)), float(np.median(theirs))
    return Comparison(name, figure, mine, other, mine - other, float(low), float(high))


def _of_loops(done: Results, arm: str) -> dict[str, Array]:
    """Figures [L] of the loops of all seeds."""
    each = [figures["of_loops"] for _, figures in done.of(arm=arm)]
    return {name: np.concatenate([loops[name] for loops in each]) for name in each[0]}


def _typical(name: str, values: Array) -> Any:
    """Over loops: a share, or else the median."""
    return (np.mean if name == "found" else np.median)(values, axis=-1)


def _stream(cell: Facts, role: str, generation: int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(cell["seed"], role, generation))


def _kept(cell: Facts, place: Place) -> tuple[Loops, dict[str, Array]]:
    """What was kept of a cell, or its start."""
    try:
        arrays = dict(place.kept(cell))
    except FileNotFoundError:
        return started(cell["seed"], cell["loops"]), {}
    return Loops(*(torch.as_tensor(arrays.pop(name)) for name in ("points", "born", "origins"))), arrays


def _grown(loops: Loops, guide: Loops | None, committees: Committees, cell: Facts, place: Place, generation: int) -> Loops:
    """With the points of one generation."""
    stream = _stream(cell, "displacements" if guide else "attacks", generation)
    if guide is not None:
        return with_random_steps(loops, guide, generation, from_start=cell["arm"] == FROM_START, generator=stream)
    if cell["arm"] in CUBES:
        ends = loops.points + CUBES[cell["arm"]] * (2.0 * torch.rand(loops.points.shape, generator=stream) - 1.0)
    else:
        steps = 60 if place.quick else ATTACK_STEPS
        ends = attacked(committees, loops.points, steps=steps, generator=stream, on_time=place.on_time)
    return with_attacks(loops, committees, ends, generator=stream)
