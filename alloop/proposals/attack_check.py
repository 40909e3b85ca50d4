"""Whether attacks as declared can move a structure: asked before a campaign begins."""

from alloop.errors import ConfigError
from alloop.proposal_sections import AttackConfig
from alloop.structures.branches import find_branch
from alloop.structures.structure import Structure


def check_attack(config: AttackConfig, structure: Structure) -> None:
    """Raises `ConfigError` for a strain of what is no cell in three directions, and for variables as `find_branch` does."""
    if config.strain > 0 and not all(structure.pbc):
        raise ConfigError(
            "a cell that is periodic in three directions for proposals.attack.strain",
            "a molecule" if not structure.is_periodic else f"periodic in {sum(structure.pbc)} directions",
            "leave `strain` out",
        )
    for variable in config.variables:
        find_branch(structure, variable.kind, variable.atoms)
