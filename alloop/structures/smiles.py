"""First geometries from a SMILES string, by RDKit (optional): ETKDG embedding, then MMFF94 or UFF."""

from typing import Any

import numpy as np

from alloop.errors import MissingExtraError, StructureError
from alloop.structures.plausible import check_overlaps
from alloop.structures.structure import Structure

MAX_SMILES_LENGTH = 500
# Conformers closer than this, hydrogens on carbon left out, are the same one.
DISTINCT_CONFORMERS_ANGSTROM = 0.25
# Embeddings for each conformer that is wanted: many fall into the same basin.
EMBEDDINGS_PER_CONFORMER = 10
# Symmetric molecules have very many ways of laying one on the other.
MOST_MATCHES = 10_000


def from_smiles(smiles: str, *, seed: int) -> Structure:
    """A conformer of the molecule, hydrogens added; charge and multiplicity from formal charges and radical electrons.

    Raises `MissingExtraError` without RDKit, `StructureError` for a string that is no molecule or has no geometry.
    """
    molecule = _with_hydrogens(smiles)
    from rdkit.Chem import AllChem  # pyright: ignore[reportMissingImports]

    if AllChem.EmbedMolecule(molecule, randomSeed=seed % 2**31) != 0:
        raise _no_geometry(smiles)
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule, maxIters=2000)
    elif AllChem.UFFHasAllMoleculeParams(molecule):
        AllChem.UFFOptimizeMolecule(molecule, maxIters=2000)
    return _structure(molecule, molecule.GetConformer().GetId(), smiles)


def conformers_from_smiles(smiles: str, count: int, *, seed: int) -> list[Structure]:
    """At most `count` distinct conformers, the lowest force field energy first; fewer where fewer are found.

    Two are distinct if they differ by more than `DISTINCT_CONFORMERS_ANGSTROM` (root mean square) in the positions of all atoms
    but hydrogens on carbon, after rotation, permutation of equivalent atoms and reflection: mirror images have one energy.
    Raises what `from_smiles` raises.
    """
    molecule = _with_hydrogens(smiles)
    from rdkit.Chem import AllChem  # pyright: ignore[reportMissingImports]

    settings = AllChem.ETKDGv3()
    settings.randomSeed = seed % 2**31
    places = list(AllChem.EmbedMultipleConfs(molecule, EMBEDDINGS_PER_CONFORMER * count, settings))
    if not places:
        raise _no_geometry(smiles)
    energies = [0.0] * len(places)
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        energies = [energy for _, energy in AllChem.MMFFOptimizeMoleculeConfs(molecule, maxIters=2000)]
    elif AllChem.UFFHasAllMoleculeParams(molecule):
        energies = [energy for _, energy in AllChem.UFFOptimizeMoleculeConfs(molecule, maxIters=2000)]
    kept: list[int] = []
    frame = _without_carbon_hydrogens(molecule)
    mirror = _reflected(frame)
    for _, place in sorted(zip(energies, places, strict=True)):
        if len(kept) < count and all(_distance(frame, mirror, place, other) > DISTINCT_CONFORMERS_ANGSTROM for other in kept):
            kept.append(place)
    return [_structure(molecule, place, smiles) for place in kept]


def _with_hydrogens(smiles: str) -> Any:
    """RDKit's molecule, without a geometry."""
    try:
        from rdkit import Chem, RDLogger  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError.of("rdkit", "smiles") from None
    RDLogger.DisableLog("rdApp.*")
    bare = Chem.MolFromSmiles(smiles) if 0 < len(smiles) <= MAX_SMILES_LENGTH and smiles.strip() else None
    if bare is None:
        raise StructureError("a SMILES string", repr(smiles[:80]), "check it, for example CCO is ethanol")
    return Chem.AddHs(bare)


def _no_geometry(smiles: str) -> StructureError:
    return StructureError(f"a geometry for {smiles!r}", "RDKit could not embed it", "give a structure file instead")


def _structure(molecule: Any, place: int, smiles: str) -> Structure:
    from rdkit import Chem  # pyright: ignore[reportMissingImports]

    unpaired = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    structure = Structure.molecule(
        [atom.GetAtomicNum() for atom in molecule.GetAtoms()],
        molecule.GetConformer(place).GetPositions(),
        total_charge=Chem.GetFormalCharge(molecule),
        spin_multiplicity=unpaired + 1,
    )
    check_overlaps(structure, smiles)
    return structure


def _without_carbon_hydrogens(molecule: Any) -> Any:
    from rdkit import Chem  # pyright: ignore[reportMissingImports]

    edited = Chem.RWMol(molecule)
    on_carbon = [
        atom.GetIdx()
        for atom in molecule.GetAtoms()
        if atom.GetAtomicNum() == 1 and any(other.GetAtomicNum() == 6 for other in atom.GetNeighbors())
    ]
    for index in reversed(on_carbon):
        edited.RemoveAtom(index)
    return edited.GetMol()


def _reflected(molecule: Any) -> Any:
    from rdkit import Chem  # pyright: ignore[reportMissingImports]

    mirror = Chem.Mol(molecule)
    for conformer in mirror.GetConformers():
        conformer.SetPositions(conformer.GetPositions() * np.array([1.0, 1.0, -1.0]))
    return mirror


def _distance(frame: Any, mirror: Any, place: int, other: int) -> float:
    """Root mean square in Å between two conformers, the first one reflected if that is closer."""
    from rdkit.Chem import AllChem  # pyright: ignore[reportMissingImports]

    return min(AllChem.GetBestRMS(probe, frame, prbId=place, refId=other, maxMatches=MOST_MATCHES) for probe in (frame, mirror))
