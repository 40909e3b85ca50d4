"""F8: the same geometry is recognised however it is written down, other ones are kept apart, and neither takes long.

Thermal geometries of molecules and of a crystal at 300 K, drawn along the model Hessian of round 0. That two of them differ is
known without the code under test: by a bound on distances, or because one was made from the other by a displacement that no
rotation, translation or permutation undoes.
"""

import time
from itertools import combinations
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from alloop.posterior.run import one_thread
from alloop.proposal_sections import ProposalConfig
from alloop.proposals.initial import cell_sampler, molecule_sampler
from alloop.rng import numpy_stream
from alloop.structures.align import same_molecule
from alloop.structures.fingerprint import DuplicateIndex, fingerprint, same_geometry
from alloop.structures.structure import Structure
from benchmarks.harness import Aim, Options, Row, answer, compare, judged

TITLE = "the same geometry recognised, others kept apart, and how long that takes (F8)"
SEED = 1
TOLERANCE = ProposalConfig().duplicate_rmsd_angstrom
TEMPERATURE_KELVIN = 300.0
NAMES = ("CH3CH2OH", "C6H6", "CH3CONH2", "NH3", "salt")
CHIRAL = Structure.molecule(  # no two atoms alike: an image is the same only if a rotation makes it so
    [6, 1, 9, 17, 35],
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.79, -0.79, 0.79], [-1.02, 1.02, -1.02], [1.12, -1.12, -1.12]],
)
TRANSFORMS = ("exact", "moved", "rotated", "permuted", "all of these and 1e-9 Å off")
DRAWS, CASES, STORED, ASKED = 500, 100_000, 100_000, 100
SMALL_DRAWS, SMALL_CASES, SMALL_STORED, SMALL_ASKED = 12, 200, 60, 4
MOST_MINUTES, MOST_BUILD_SECONDS, MOST_MS = 10.0, 30.0, 10.0
Draws = dict[str, list[Structure]]


def run(options: Options) -> dict[str, Any]:
    """Rows of recognition, of separation, of mirror images, and of time."""
    start = time.process_time()
    draws_of, cases, stored, asked = (
        (SMALL_DRAWS, SMALL_CASES, SMALL_STORED, SMALL_ASKED) if options.quick else (DRAWS, CASES, STORED, ASKED)
    )
    with one_thread():
        draws = {name: thermal(rest_of(name), draws_of) for name in NAMES}
        rows = [*recognised(draws, cases), *kept_apart(draws, cases), *mirror_images(cases // 50)]
        rows += timed(draws["CH3CH2OH"], stored, asked)
    minutes = (time.process_time() - start) / 60.0
    rows.append(judged("core-minutes of all this", minutes, None, "min", f"<= {MOST_MINUTES:g}", minutes <= MOST_MINUTES))
    return answer("duplicates", SEED, rows, options)


def rest_of(name: str) -> Structure:
    """The geometry that the draws are around; `salt` is a cube of rock salt of 8 ions."""
    if name == "salt":
        atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
        return Structure(atoms.numbers, atoms.positions, atoms.cell.array, (True, True, True), 0, 1)
    atoms = molecule(name)
    return Structure.molecule(atoms.numbers, atoms.positions)


def thermal(rest: Structure, count: int) -> list[Structure]:
    """`count` draws around `rest`."""
    sample = cell_sampler(rest) if rest.is_periodic else molecule_sampler(rest)
    generator = numpy_stream(SEED, "duplicates-draws", rest.n_atoms)
    return [rest.with_positions(sample(TEMPERATURE_KELVIN, generator)) for _ in range(count)]


def transformed(structure: Structure, kind: str, generator: np.random.Generator) -> Structure:
    """The same geometry written down in another way. Cells are rotated with their atoms, which move to other images too."""
    everything = kind == TRANSFORMS[-1]
    numbers, positions, cell = structure.numbers, structure.positions, structure.cell
    if everything:
        positions = positions + 1e-9 * generator.choice([-1.0, 1.0], size=positions.shape)
    if everything or kind == "moved":
        images = generator.integers(-2, 3, size=positions.shape) * np.array(structure.pbc)
        positions = positions + images @ cell + generator.normal(size=3) * 5.0
    if everything or kind == "rotated":
        rotation = Rotation.random(rng=generator).as_matrix()
        positions, cell = positions @ rotation, cell @ rotation
    if everything or kind == "permuted":
        order = generator.permutation(len(numbers))
        numbers, positions = numbers[order], positions[order]
    return Structure(numbers, positions, cell, structure.pbc, structure.total_charge, structure.spin_multiplicity)


def recognised(draws: Draws, cases: int) -> list[Row]:
    """For each kind of transform the share of copies that an index of all draws knows."""
    generator = numpy_stream(SEED, "duplicates-transforms")
    indices = {name: DuplicateIndex(structures, TOLERANCE) for name, structures in draws.items()}
    rows = []
    for kind in TRANSFORMS:
        count, found = cases // len(TRANSFORMS), 0
        for case in range(count):
            name = NAMES[case % len(NAMES)]
            structure = draws[name][generator.integers(len(draws[name]))]
            found += indices[name].contains(transformed(structure, kind, generator))
        share = 100.0 * found / count
        rows.append(judged(f"{kind}: recognised of {count:,}", share, None, "%", ">= 99.99 %", share >= 99.99))
    return rows


def kept_apart(draws: Draws, cases: int) -> list[Row]:
    """Pairs that are distinct by construction, and how many of them the check calls the same."""
    generator = numpy_stream(SEED, "duplicates-pairs")
    invariants = {name: [invariant(each) for each in structures] for name, structures in draws.items()}
    merged = {"thermal pairs": 0, "pairs 1.05 to 1.5 tolerances apart": 0}
    for case in range(cases // 2):
        name = NAMES[case % len(NAMES)]
        first, second = distinct_pair(invariants[name], generator)
        one = draws[name][first]
        for label, other in zip(merged, (draws[name][second], nudged(one, generator)), strict=True):
            copy = transformed(other, TRANSFORMS[-1], generator)
            merged[label] += same_geometry(one, copy, TOLERANCE, mirror=bool(case % 2))
    return [
        judged(f"{label}: merged of {cases // 2:,}", count, None, "pairs", "0", count == 0) for label, count in merged.items()
    ]


def invariant(structure: Structure) -> NDArray[np.float64]:
    """Numbers in Å whose root mean square change is no larger than the root mean square displacement of the best match: in
    molecules distances from the centroid, in cells those of pairs over sqrt(2 n / (n - 1)), sorted within elements."""
    n_atoms = structure.n_atoms
    if not structure.is_periodic:
        values = np.linalg.norm(structure.positions - structure.positions.mean(axis=0), axis=1)
        return values[np.lexsort((values, structure.numbers))]
    atoms = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
    first, second = np.triu_indices(n_atoms, k=1)
    values = atoms.get_all_distances(mic=True)[first, second]
    elements = np.sort([structure.numbers[first], structure.numbers[second]], axis=0)
    return values[np.lexsort((values, *elements))] / np.sqrt(2.0 * n_atoms / (n_atoms - 1))


def distinct_pair(invariants: list[NDArray[np.float64]], generator: np.random.Generator) -> tuple[int, int]:
    """Places of two draws whose invariants say that they are not the same."""
    while True:
        first, second = generator.choice(len(invariants), size=2, replace=False)
        if np.sqrt(np.mean((invariants[first] - invariants[second]) ** 2)) > 1.001 * TOLERANCE:
            return int(first), int(second)


def nudged(structure: Structure, generator: np.random.Generator) -> Structure:
    """The same 1.05 to 1.5 tolerances off, which nothing undoes.

    A molecule is scaled about its centroid: matching the distances from there is a lower bound for any rotation and
    permutation, and sorted ones are matched best. Of a crystal one kind of ion is moved against the other along x, the sum
    staying zero: no other match of thermal positions is as close.
    """
    size = TOLERANCE * generator.uniform(1.05, 1.5)
    if structure.is_periodic:
        signs = np.where(structure.numbers == structure.numbers[0], 1.0, -1.0)
        return structure.with_positions(structure.positions + size * signs[:, None] * [1.0, 0.0, 0.0])
    arms = structure.positions - structure.positions.mean(axis=0)
    return structure.with_positions(arms * (1.0 + size / np.sqrt((arms**2).sum(axis=1).mean())))


def mirror_images(cases: int) -> list[Row]:
    """Mirror images of a thermal molecule of five elements, by both choices of `proposals.enantiomers`."""
    generator = numpy_stream(SEED, "duplicates-mirror")
    draws = thermal(CHIRAL, min(cases, DRAWS))
    same = distinct = 0
    for case in range(cases):
        structure = draws[case % len(draws)]
        image = transformed(structure.with_positions(-structure.positions), TRANSFORMS[-1], generator)
        same += same_geometry(structure, image, TOLERANCE, mirror=True)
        distinct += not same_geometry(structure, image, TOLERANCE, mirror=False)
    told = {
        f"mirror images, `same`: recognised of {cases:,}": same,
        f"mirror images, `distinct`: kept apart of {cases:,}": distinct,
    }
    return [judged(name, 100.0 * count / cases, None, "%", "100 %", count == cases) for name, count in told.items()]


def timed(draws: list[Structure], stored: int, asked: int) -> list[Row]:
    """An index of `stored` thermal structures beside a search that compares each fingerprint and aligns each near one alone; in
    processor time, which bears a busy machine."""
    crowd = combined(draws, stored + asked)
    known, fresh = crowd[:stored], crowd[stored:]
    generator = numpy_stream(SEED, "duplicates-queries")
    copies = [transformed(known[index], TRANSFORMS[-1], generator) for index in generator.integers(stored, size=asked)]
    start = time.process_time()
    index = DuplicateIndex(known, TOLERANCE)
    built = time.process_time() - start
    aim = f"<= {MOST_BUILD_SECONDS:g} s"
    rows = [judged(f"index of {stored:,} ethanol structures made", built, None, "s", aim, built <= MOST_BUILD_SECONDS)]
    fingerprints = np.array([fingerprint(each) for each in known])
    for label, queries in (("new one", fresh), ("copy of a known one", copies)):
        ours, plain = [], []
        for query in queries:
            start = time.process_time()
            found = index.find(query)
            middle = time.process_time()
            expected = searched(known, fingerprints, query)
            ours.append(middle - start)
            plain.append(time.process_time() - middle)
            if found is not expected:
                raise RuntimeError(f"the index and a plain search disagree on {query.structure_id}")
        rows.append(compare(f"{label} looked for among {stored:,} / plain search", ours, plain, Aim(0.2, "<= 0.2")))
        median_ms = rows[-1].ours or 0.0
        rows.append(judged(f"{label}: median processor time", median_ms, None, "ms", f"<= {MOST_MS:g}", median_ms <= MOST_MS))
    return rows


def combined(draws: list[Structure], count: int) -> list[Structure]:
    """`count` structures whose displacements from the mean are those of two draws over sqrt(2): they have the covariance of the
    draws, and cost less to make."""
    positions = np.array([each.positions for each in draws])
    mean = positions.mean(axis=0)
    pairs = np.array(list(combinations(range(len(draws)), 2)))
    chosen = pairs[numpy_stream(SEED, "duplicates-crowd").permutation(len(pairs))[:count]]
    return [
        draws[0].with_positions(mean + (positions[first] + positions[second] - 2.0 * mean) / np.sqrt(2.0))
        for first, second in chosen
    ]


def searched(known: list[Structure], fingerprints: NDArray[np.float64], query: Structure) -> Structure | None:
    """The first known structure that is the same, by a plain search."""
    differences = np.sqrt(np.mean((fingerprints - fingerprint(query)) ** 2, axis=1))
    n_atoms = query.n_atoms
    near = np.flatnonzero(differences <= TOLERANCE * np.sqrt(2.0 * n_atoms / (n_atoms - 1)) + 1e-9)
    return next((known[place] for place in near if same_molecule(query, known[place], TOLERANCE)), None)
