"""Write silicon.extxyz, the start of silicon.yaml: rattled cells of silicon, smaller and larger than GFN1-xTB wants them.

python examples/silicon.py
"""

from pathlib import Path

from ase import Atoms
from ase.build import bulk
from ase.io import write

LATTICE_ANGSTROM = (5.55, 5.65, 5.75)
RATTLE_ANGSTROM = 0.08


def cells() -> list[Atoms]:
    """Eight atoms each."""
    made = [bulk("Si", a=length, cubic=True) for length in LATTICE_ANGSTROM]
    for seed, atoms in enumerate(made):
        atoms.rattle(RATTLE_ANGSTROM, seed=seed)
    return made


if __name__ == "__main__":
    write(Path(__file__).with_suffix(".extxyz"), cells())
