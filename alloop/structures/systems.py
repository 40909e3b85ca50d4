"""What a structure is a geometry of: campaigns may hold several systems, each with conformers, clusters or cells of its own."""

from collections.abc import Sequence

from alloop.structures.fingerprint import composition_key
from alloop.structures.structure import Structure, lowest_multiplicity


def system_of(structure: Structure) -> str:
    """The name of a system: the formula, and what of charge, spin and periodicity is out of the ordinary.

    Structures are of one system where all of these are the same: conformers and isomers are, ions and their molecule are not.
    """
    told = [composition_key(structure)]
    if structure.total_charge:
        told.append(f"charge {structure.total_charge:+d}")
    if structure.spin_multiplicity != lowest_multiplicity(structure.numbers, structure.total_charge):
        told.append(f"multiplicity {structure.spin_multiplicity}")
    if structure.is_periodic:
        along = "".join(name for name, periodic in zip("abc", structure.pbc, strict=True) if periodic)
        told.append("cell" if along == "abc" else f"periodic along {along}")
    return ", ".join(told)


def in_turn(structures: Sequence[Structure]) -> list[Structure]:
    """The same structures, systems taking turns, each in its order: the first few hold something of every system."""
    by_system: dict[str, list[Structure]] = {}
    for each in structures:
        by_system.setdefault(system_of(each), []).append(each)
    queues = list(by_system.values())
    return [queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue)]
