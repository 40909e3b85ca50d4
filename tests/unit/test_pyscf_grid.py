"""Basis functions kept on the grid change nothing but the work: bit for bit, for closed and open shells and on every rung."""

from typing import Any

import numpy as np
import pytest

from alloop.labels.labeler import Resources
from alloop.labels.level_of_theory import PyscfLevel
from alloop.structures.structure import Structure
from labelers.remedies import Climbed

pytest.importorskip("pyscf")
OH = Structure.molecule([8, 1], [[0.0, 0.0, 0.0], [0.0, 0.1, 0.98]])
WATER = Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
LEVELS = (PyscfLevel(basis="STO-3G"), PyscfLevel(functional="M06-2X", basis="STO-3G", density_fitting=False, stability=True))


def converged(level: PyscfLevel, structure: Structure) -> Any:
    from labelers.pyscf_dft import converged_field

    found = converged_field(level, structure, Resources())
    assert isinstance(found, Climbed)
    return found.outcome.field


@pytest.mark.parametrize("structure", [WATER, OH], ids=["water", "OH"])
@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_energy_and_forces_are_the_same_bit_for_bit(
    level: PyscfLevel, structure: Structure, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = converged(level, structure)
    monkeypatch.setattr("labelers.pyscf_grid.KEPT_SHARE_OF_MEMORY", 0.0)
    plain = converged(level, structure)
    assert kept.e_tot == plain.e_tot
    np.testing.assert_array_equal(kept.nuc_grad_method().kernel(), plain.nuc_grad_method().kernel())


@pytest.mark.parametrize(("share", "kept"), [(0.2, True), (1e-7, False)])
def test_they_are_computed_once_where_they_fit(share: float, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from labelers.pyscf_field import mean_field

    monkeypatch.setattr("labelers.pyscf_grid.KEPT_SHARE_OF_MEMORY", share)
    field = mean_field(LEVELS[0], WATER, Resources())
    calls: list[int] = []
    plain = field._numint.eval_ao

    def counted(mol: Any, coords: Any, **asked: Any) -> Any:
        calls.append(len(coords))
        return plain(mol, coords, **asked)

    field._numint.eval_ao = counted
    field.kernel()
    assert field.converged
    walks = sum(calls) / len(field.grids.coords)
    assert walks == pytest.approx(1.0) if kept else walks >= field.cycles
