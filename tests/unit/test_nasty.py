"""The molecules of F9 are what their list says they are."""

import numpy as np

from benchmarks.evidence.nasty import NASTY


def test_there_are_fifty_of_at_most_twenty_atoms_of_every_kind() -> None:
    made = {name: maker() for name, maker in NASTY.items()}
    assert len(made) == 50
    assert len({structure.structure_id for structure in made.values()}) == 50
    assert max(structure.n_atoms for structure in made.values()) <= 20
    metals = [each for each in made.values() if any(21 <= number <= 30 for number in each.numbers)]
    charged = [each for each in made.values() if each.total_charge]
    radicals = [each for each in made.values() if each.spin_multiplicity > 1]
    assert min(len(metals), len(charged), len(radicals)) >= 10


def test_no_atoms_lie_on_each_other() -> None:
    for name, maker in NASTY.items():
        positions = maker().positions
        first, second = np.triu_indices(len(positions), k=1)
        assert np.linalg.norm(positions[first] - positions[second], axis=1).min() > 0.9, name
