"""A first geometry from a SMILES string, by RDKit (optional): ETKDG embedding, then MMFF94 or UFF."""

from alloop.errors import MissingExtraError, StructureError
from alloop.structures.plausible import check_overlaps
from alloop.structures.structure import Structure

MAX_SMILES_LENGTH = 500


def from_smiles(smiles: str, *, seed: int) -> Structure:
    """A conformer of the molecule, hydrogens added; charge and multiplicity from formal charges and radical electrons.

    Raises `MissingExtraError` without RDKit, `StructureError` for a string that is no molecule or has no geometry.
    """
    try:
        from rdkit import Chem, RDLogger  # pyright: ignore[reportMissingImports]
        from rdkit.Chem import AllChem  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError.of("rdkit", "smiles") from None
    RDLogger.DisableLog("rdApp.*")
    bare = Chem.MolFromSmiles(smiles) if 0 < len(smiles) <= MAX_SMILES_LENGTH and smiles.strip() else None
    if bare is None:
        raise StructureError("a SMILES string", repr(smiles[:80]), "check it, for example CCO is ethanol")
    molecule = Chem.AddHs(bare)
    if AllChem.EmbedMolecule(molecule, randomSeed=seed % 2**31) != 0:
        raise StructureError(f"a geometry for {smiles!r}", "RDKit could not embed it", "give a structure file instead")
    if AllChem.MMFFHasAllMoleculeParams(molecule):
        AllChem.MMFFOptimizeMolecule(molecule, maxIters=2000)
    elif AllChem.UFFHasAllMoleculeParams(molecule):
        AllChem.UFFOptimizeMolecule(molecule, maxIters=2000)
    unpaired = sum(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms())
    structure = Structure.molecule(
        [atom.GetAtomicNum() for atom in molecule.GetAtoms()],
        molecule.GetConformer().GetPositions(),
        total_charge=Chem.GetFormalCharge(molecule),
        spin_multiplicity=unpaired + 1,
    )
    check_overlaps(structure, smiles)
    return structure
