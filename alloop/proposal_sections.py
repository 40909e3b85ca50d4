"""The sections of a campaign file that say how structures are proposed: round 0, and the rounds after it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alloop.errors import ConfigError
from alloop.sections import Section

Temperatures = tuple[Annotated[float, Field(gt=0)], ...]
AtomIndex = Annotated[int, Field(ge=0)]
VariableKind = Literal["dihedral", "angle", "distance"]
VARIABLE_KINDS: tuple[VariableKind, ...] = ("dihedral", "angle", "distance")


class InitialConfig(Section):
    """Round 0: displacements of the start structures, labeled before any model exists."""

    structures: int = Field(default=30, ge=4, description="labels of round 0, shared out among the start structures")
    temperatures_kelvin: Temperatures = Field(
        default=(300.0, 600.0), min_length=1, description="of thermal displacements, taken in turn"
    )
    method: Literal["thermal", "rattle"] = Field(
        default="thermal", description="thermal: along the normal modes of a model Hessian; rattle: every coordinate at random"
    )
    rattle_angstrom: float = Field(
        default=0.05, gt=0, le=0.5, description="of `method: rattle`: standard deviation of each coordinate"
    )


class CollectiveVariable(Section):
    """A list of internal coordinates of a molecule, each one of `dihedral`, `angle`, `distance` with its atoms, counted from 0.
    What lies beyond the bond moves (method 4.2)."""

    name: str | None = Field(default=None, max_length=64, description="what the report calls it")
    dihedral: tuple[AtomIndex, AtomIndex, AtomIndex, AtomIndex] | None = Field(
        default=None, description="four atoms in a chain of bonds: what lies beyond the middle bond turns about it"
    )
    angle: tuple[AtomIndex, AtomIndex, AtomIndex] | None = Field(
        default=None, description="three atoms in a chain of bonds: what lies beyond the second bond turns in the plane"
    )
    distance: tuple[AtomIndex, AtomIndex] | None = Field(
        default=None, description="two bonded atoms, or atoms of two molecules: what lies beyond moves along the line"
    )

    @model_validator(mode="after")
    def _is_one_coordinate(self) -> Self:
        given = [kind for kind in VARIABLE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ConfigError(
                f"one of {', '.join(f'`{kind}`' for kind in VARIABLE_KINDS)} in each entry of proposals.attack.variables",
                ", ".join(given) or "none of them",
                "write one entry for each variable, for example `- dihedral: [0, 1, 2, 3]`",
            )
        if len(set(self.atoms)) < len(self.atoms):
            raise ConfigError(f"different atoms in {self.label}", f"{list(self.atoms)}", "name each atom once, counted from 0")
        return self

    @property
    def kind(self) -> VariableKind:
        return next(kind for kind in VARIABLE_KINDS if getattr(self, kind) is not None)

    @property
    def atoms(self) -> tuple[int, ...]:
        return getattr(self, self.kind)

    @property
    def label(self) -> str:
        """Its name, or for example `dihedral 0-1-2-3`."""
        return self.name or f"{self.kind} {'-'.join(map(str, self.atoms))}"


class AttackConfig(Section):
    """Adversarial attacks: climbing the committee's uncertainty (method 4). They move every atom, unless collective `variables`
    are declared; then only these."""

    objective: Literal["force_variance", "energy_variance", "stress_variance", "bald"] = Field(
        default="force_variance",
        description="what is climbed: the members' variance, or bald: what a label would tell of the model, from forces",
    )
    seeds: int = Field(default=32, ge=1, description="structures attacked in a round")
    seeds_from: tuple[Literal["training", "trajectories", "starts"], ...] = Field(
        default=("training",),
        min_length=1,
        description="where they come from, taken in turn: training set, frames of the probe, start structures (conformers)",
    )
    steps: int = Field(default=60, ge=1, description="most steps of an attack")
    patience: int = Field(default=15, ge=1, description="an attack ends when its objective has not risen for so many steps")
    learning_rate_angstrom: float = Field(default=0.01, gt=0, description="of Adam on displacements, and on distances")
    clamp_angstrom: float = Field(default=0.5, gt=0, description="largest displacement of an atom, or change of a distance")
    thermal_energy_ev: float = Field(default=0.2, gt=0, description="kT of the plausibility weight, on the total energy")
    variables: tuple[CollectiveVariable, ...] = Field(
        default=(), description="dihedrals, angles and distances that attacks move in place of single atoms, for molecules"
    )
    learning_rate_degrees: float = Field(default=2.0, gt=0, description="of Adam on dihedrals and angles")
    clamp_degrees: float = Field(default=180.0, gt=0, le=180.0, description="largest change of a dihedral or an angle")
    strain: float = Field(default=0.0, ge=0, le=0.2, description="largest strain of a cell; 0: the cell keeps its shape")
    learning_rate_strain: float = Field(default=0.002, gt=0, description="of Adam on the strain")
    displace: bool = Field(default=True, description="false: atoms move with the strained cell only")

    @model_validator(mode="after")
    def _moves_fit_together(self) -> Self:
        if self.strain == 0 and (not self.displace or self.objective == "stress_variance"):
            came = "displace: false" if not self.displace else "objective: stress_variance"
            raise ConfigError(
                f"proposals.attack.strain above 0 for `{came}`", f"strain: {self.strain:g}", "set `strain`, for example 0.03"
            )
        if self.strain > 0 and self.variables:
            raise ConfigError(
                "proposals.attack with `strain`, for cells, or `variables`, for molecules",
                f"strain: {self.strain:g} and {len(self.variables)} variables",
                "take out one of the two",
            )
        labels = [variable.label for variable in self.variables]
        if len(set(labels)) < len(labels):
            raise ConfigError("each of proposals.attack.variables once", ", ".join(labels), "take out the double one")
        return self


class DynamicsConfig(Section):
    """Committee dynamics: the probe, and the exploration for candidates beside it (method 5.1, 5.2, 5.5)."""

    temperature_kelvin: float = Field(default=300.0, gt=0, description="the temperature the potential is for")
    timestep_fs: float = Field(default=0.5, gt=0, le=2.0, description="of every trajectory")
    friction_per_fs: float = Field(default=0.02, gt=0, description="of Langevin dynamics, that of the evaluation frames too")
    trajectories: int = Field(default=16, ge=2, description="trajectories of the probe")
    trajectory_steps: int = Field(default=200, ge=10, description="steps of each trajectory")
    stop_ratio: float = Field(
        default=3.0,
        gt=1,
        description="a trajectory ends at this many times the probe's median uncertainty, or the lower trust level if higher",
    )
    trust_lower_ev_per_angstrom: float = Field(
        default=0.05, gt=0, description="uncertainty below which a frame of the exploration needs no label"
    )
    exploration_trajectories: int | None = Field(
        default=None, ge=1, description="rows of the exploration; as many as `trajectories` if left out"
    )
    exploration_steps: int | None = Field(default=None, ge=10, description="of each row; `trajectory_steps` if left out")
    exploration_temperatures_kelvin: Temperatures | None = Field(
        default=None, min_length=1, description="taken in turn by the rows; `temperature_kelvin` and 1.5 times it if left out"
    )
    thermostat: Literal["langevin", "nose_hoover"] = Field(
        default="langevin", description="of the exploration; nose_hoover: chains of three, coupled as fast as the friction says"
    )
    bias_ratio: float = Field(
        default=0.2, gt=0, le=1, description="of `strategy: biased`: size of the bias beside the force, on average"
    )


class SelectionConfig(Section):
    """Which candidates make a batch together (method 5.4)."""

    method: Literal["lcmd", "max_determinant"] = Field(
        default="lcmd", description="lcmd: largest-cluster max-distance; max_determinant: the largest joint information"
    )
    features: Literal["invariants", "deviations"] = Field(
        default="invariants",
        description="invariants: of the last layer, summed by element; deviations: which members disagree, and with whom",
    )
    cost_aware: bool = Field(
        default=False, description="variance for each core-second a label is expected to cost; for systems of several sizes"
    )


class ProposalConfig(Section):
    """How the next structures are chosen (method 4 and 5)."""

    strategy: Literal["mixed", "adversarial", "dynamics", "biased", "random"] = Field(
        default="mixed",
        description="mixed: committee dynamics, and a quarter of attacks; biased: dynamics drawn to disagreement; "
        "random: dynamics frames by no score, the control",
    )
    batch: int = Field(default=20, ge=2, description="labels a round")
    shrink_batch: bool = Field(
        default=False,
        description="the accurate share of probe frames is taken off `batch`, down to 2; small steps look flat to the plateau",
    )
    calibration_fraction: float = Field(
        default=0.3, ge=0.05, le=0.5, description="of each batch, drawn at random, never by score"
    )
    awaited_fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="of a batch, for whose labels the next model waits; the others stay in the queue and are scored anew",
    )
    attack: AttackConfig = Field(default=AttackConfig(), description="adversarial attacks")
    dynamics: DynamicsConfig = Field(default=DynamicsConfig(), description="committee dynamics")
    selection: SelectionConfig = Field(default=SelectionConfig(), description="what makes a batch of candidates")
    energy_window_ev_per_atom: float = Field(
        default=0.5, gt=0, description="above the lowest label; higher proposals are rejected"
    )
    strain_window_ev: float = Field(
        default=1.0,
        gt=0,
        description="by the force field of round 0, for one bond length or angle of a molecule whose bonds do not break; "
        "more is rejected: a young model is sure of nonsense there",
    )
    trust_upper_ev_per_angstrom: float = Field(default=2.0, gt=0, description="uncertainty above which a proposal is 'failed'")
    duplicate_rmsd_angstrom: float = Field(
        default=0.02, gt=0, description="closer than this, after rotation and permutation, is the same geometry"
    )
    enantiomers: Literal["same", "distinct"] = Field(
        default="same",
        description="same: no label for a mirror image, which has the same energy and mirrored forces, and so has the model's "
        "(but with `parity: none`); distinct: it gets one",
    )

    @model_validator(mode="after")
    def _trust_levels_leave_room(self) -> Self:
        lower, upper = self.dynamics.trust_lower_ev_per_angstrom, self.trust_upper_ev_per_angstrom
        if lower >= upper:
            raise ConfigError(
                "proposals.dynamics.trust_lower_ev_per_angstrom below proposals.trust_upper_ev_per_angstrom",
                f"{lower:g} and {upper:g}",
                "raise the upper level, or lower the lower one: candidates lie between them",
            )
        return self
