"""Which state a converged field is: <S^2>, and what a stability analysis says (Seeger, Pople, J. Chem. Phys. 66, 3045 (1977)).

A converged field may be a saddle point. Where the level of theory asks for it, a field is followed downhill until nothing of
its own kind (restricted or unrestricted) lowers it. What only unpairing electrons would lower is told and not followed: the
multiplicity of a structure says which kind of field it has.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from alloop.labels.label import FailureKind, LabelFailure
from labelers.remedies import ScfSettings

MOST_DESCENTS = 5


def spin_facts(field: Any) -> Mapping[str, Any]:
    """<S^2> of an unrestricted field beside S (S + 1), in units of ħ²; nothing for a closed shell.

    Fractional occupations have no one determinant, so none is told for them.
    """
    unpaired = field.mol.spin
    if not unpaired or not np.isin(np.asarray(field.mo_occ), (0.0, 1.0)).all():
        return {}
    squared, _ = field.spin_square()
    return {"spin_squared": float(squared), "spin_squared_ideal": unpaired / 2 * (unpaired / 2 + 1.0)}


def stabilized(field: Any, settings: ScfSettings) -> tuple[Any, Mapping[str, Any]] | LabelFailure:
    """A field that no rotation of its orbitals lowers, and what was found on the way.

    Raises nothing: a field that stays unstable, or whose descent does not converge, is a CONVERGENCE failure.
    """
    field = field.remove_soscf()
    if not _has_rotations(field):
        return field, {}
    start = float(field.e_tot)
    for descents in range(MOST_DESCENTS + 1):
        orbitals, _, stable, _ = field.stability(return_status=True)
        if stable:
            facts = {"descents": descents, "lowered_hartree": start - float(field.e_tot)}
            return field, {"stability": facts | {"spin_stable": _is_spin_stable(field)}}
        descent = field.newton()
        descent.max_cycle = settings.max_cycles
        descent.kernel(dm0=field.make_rdm1(orbitals, field.mo_occ))
        if not descent.converged:
            return LabelFailure(FailureKind.CONVERGENCE, "an unstable field, and the descent from it did not converge")
        field = descent.remove_soscf()
    return LabelFailure(FailureKind.CONVERGENCE, f"a field that is unstable still after {MOST_DESCENTS} descents")


def _has_rotations(field: Any) -> bool:
    """Whether there are occupied orbitals and empty ones of the same spin: a hydrogen atom in a minimal basis has none."""
    return any(0 < np.count_nonzero(spin) < len(spin) for spin in np.atleast_2d(field.mo_occ))


def _is_spin_stable(field: Any) -> bool | None:
    """Whether a restricted field stays where electrons may unpair; None for an unrestricted one, which has them free."""
    from pyscf.scf.stability import rhf_external

    if field.mol.spin:
        return None
    return bool(rhf_external(field, return_status=True)[1])
