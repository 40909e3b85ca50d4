"""One PySCF label, ours or as PySCF's manual has it, timed in a process of its own. Without torch, which takes longer to import
than a small label to compute."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from alloop.labels.label import Label, LabelRequest
from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import PyscfLevel
from alloop.structures.structure import Structure
from alloop.units import EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR, EV_PER_HARTREE
from labelers.supervisor import SETTINGS, THREAD_VARIABLES


class Timed(NamedTuple):
    """One label: energy in eV, forces [atoms, 3] in eV/Å, seconds of the processor over all threads, and of the clock."""

    energy: float
    forces: NDArray[np.float64]
    core_seconds: float
    wall_seconds: float
    threads: int


def our_label(level: PyscfLevel, structure: Structure) -> Timed:
    """Runs in a child process. Raises `RuntimeError` where there is no label."""
    from labelers.attempt import attempt
    from labelers.catalog import labeler_for

    started = time.process_time(), time.perf_counter()
    made = attempt(labeler_for(level), LabelRequest(structure, level), Resources(threads=1))
    if not isinstance(made, Label):
        raise RuntimeError(made.message)
    return _timed(made.energy, made.forces, started)


def their_label(level: PyscfLevel, structure: Structure) -> Timed:
    """As the manual of PySCF has it. Runs in a child process."""
    from pyscf import dft, gto

    started = time.process_time(), time.perf_counter()
    atoms = [(int(number), position) for number, position in zip(structure.numbers, structure.positions, strict=True)]
    field = dft.RKS(gto.M(atom=atoms, basis=level.basis, verbose=0), xc=level.functional).run()
    gradient = np.asarray(field.nuc_grad_method().kernel())
    return _timed(field.e_tot * EV_PER_HARTREE, -gradient * EV_PER_ANGSTROM_PER_HARTREE_PER_BOHR, started)


@contextmanager
def child(*, single: bool) -> Iterator[ProcessPoolExecutor]:
    """A process with the environment of a labeling worker in one thread, or with that of a person who set nothing."""
    before = dict(os.environ)
    unset = {name: value for name, value in before.items() if name not in (*THREAD_VARIABLES, *SETTINGS)}
    wanted = {**unset, **SETTINGS, **dict.fromkeys(THREAD_VARIABLES, "1")} if single else unset
    _replace_environment(wanted)
    try:
        pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        pool.submit(os.getpid).result()
    finally:
        _replace_environment(before)
    with pool:
        yield pool


def h2() -> Structure:
    return Structure.molecule([1, 1], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]])


def _timed(energy: float, forces: NDArray[np.float64], started: tuple[float, float]) -> Timed:
    from pyscf import lib

    core, wall = started
    return Timed(float(energy), forces, time.process_time() - core, time.perf_counter() - wall, int(lib.num_threads()))


def _replace_environment(wanted: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(wanted)
