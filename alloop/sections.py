"""The sections of a campaign file, each a value of its own: a function takes the section it needs, never the whole."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from alloop.errors import ConfigError
from alloop.labels.level_of_theory import SHORT_NAMES, LevelOfTheory

MAX_CHARGE = 1000
Widths = tuple[Annotated[int, Field(ge=1, le=1024)], ...]
Temperatures = tuple[Annotated[float, Field(gt=0)], ...]
AtomIndex = Annotated[int, Field(ge=0)]
VariableKind = Literal["dihedral", "angle", "distance"]
VARIABLE_KINDS: tuple[VariableKind, ...] = ("dihedral", "angle", "distance")
_LEVELS: TypeAdapter[LevelOfTheory] = TypeAdapter(LevelOfTheory)


class Section(BaseModel):
    """A frozen section of the campaign file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SystemConfig(Section):
    """What is studied."""

    structure: str = Field(description="structure file (xyz, extxyz, cif, POSCAR), relative to the campaign file")
    length_unit: Literal["Angstrom", "bohr", "nm", "pm"] | None = Field(
        default=None, description="of the structure file; if left out it is read in Å, and refused where that cannot be"
    )
    total_charge: int = Field(default=0, ge=-MAX_CHARGE, le=MAX_CHARGE, description="in e")
    spin_multiplicity: int | None = Field(default=None, ge=1, description="2S + 1; the lowest that fits if left out")
    reactions: bool = Field(default=False, description="whether bonds may break: fragments are then no reason to reject")


class ModelConfig(Section):
    """The stochastic NequIP model (Rensmeyer et al. 2024; Batzner et al. 2022)."""

    l_max: int = Field(default=2, ge=0, le=3, description="highest degree of features and spherical harmonics")
    parity: Literal["natural", "both", "none"] = Field(
        default="natural", description="natural: (-1)^l only; both; none: rotations only, reflections are not imposed"
    )
    layers: int = Field(default=2, ge=1, le=8, description="interaction layers")
    channels: int = Field(default=32, ge=4, le=256, description="features per irrep")
    cutoff_angstrom: float = Field(default=5.0, gt=1.0, le=12.0, description="atoms closer than this are neighbours")
    radial_basis: int = Field(default=8, ge=2, le=32, description="Bessel functions")
    cutoff_power: int = Field(default=6, ge=2, le=12, description="p of the polynomial cutoff")
    radial_hidden: Widths = Field(default=(32,), min_length=1, description="hidden widths of the radial network")
    readout_hidden: int = Field(default=32, ge=1, description="hidden width of the energy head")
    noise_hidden: Widths = Field(default=(32, 16), min_length=1, description="hidden widths of the noise heads")
    learn_energy_noise: bool = Field(default=False, description="false: the energy noise stays at its start")
    energy_noise_ev_per_atom: float = Field(default=0.01, gt=0, description="energy noise at zero head output, and if fixed")
    force_noise_ev_per_angstrom: float = Field(default=0.3, gt=0, description="force noise at zero head output")
    force_noise: Literal["isotropic", "covariance"] = Field(
        default="isotropic", description="covariance: a 3x3 matrix for each atom, which turns with it; needs `l_max` 2 or more"
    )

    @model_validator(mode="after")
    def _covariance_has_its_degree(self) -> Self:
        if self.force_noise == "covariance" and self.l_max < 2:
            raise ConfigError(
                "model.l_max of 2 or 3 for `force_noise: covariance`, which is made of l = 2 features",
                f"l_max: {self.l_max}",
                "raise `l_max`, or set `force_noise: isotropic`",
            )
        return self


class PosteriorConfig(Section):
    """The sampler: SGHMC with a parameter-specific AMSGrad mass (Rensmeyer et al. 2024, method 2.2), or in its place a baseline
    with the same network and budget (method 2.6)."""

    method: Literal["sghmc", "ensemble", "dropout", "last_layer"] = Field(
        default="sghmc", description="sghmc: the posterior; the others: deep ensemble, MC dropout, posterior of the last layer"
    )
    samples: int = Field(default=8, ge=2, le=64, description="K: posterior samples, one from each independent chain")
    warmup_steps: int = Field(default=1500, ge=1, description="noise-free climb of the likelihood before sampling starts")
    mass_steps: int = Field(default=300, ge=1, description="steps with ramped noise in which the mass is learned, then frozen")
    sampling_steps: int = Field(default=700, ge=1, description="steps with frozen mass; the last one is kept")
    warmup_learning_rate: float = Field(default=2e-2, gt=0, description="of Adam; a cosine takes it down to `step_size`")
    kernel: Literal["sghmc", "baoa", "sgld"] = Field(
        default="sghmc", description="the paper's; BAOA: no step bias on quadratics; SGLD: no momentum"
    )
    step_size: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        default=1e-3, description="gamma; auto: the largest that keeps to `variance_inflation`, measured where sampling starts"
    )
    variance_inflation: float = Field(
        default=0.05, gt=0, lt=1, description="of the posterior by minibatch noise and by the step, tolerated for `auto`"
    )
    subtract_gradient_noise: bool = Field(default=False, description="inject less noise where the minibatch brings its own")
    step_schedule: Literal["constant", "cyclical"] = Field(
        default="constant", description="cyclical: a cosine from the step size to zero in each cycle, drawn from at its end"
    )
    cycles: int = Field(default=1, ge=1, description="of a cyclical schedule, over the sampling steps")
    friction: float = Field(default=0.1, gt=0, lt=1, description="alpha, per step")
    second_moment_decay: float = Field(default=0.999, gt=0, lt=1, description="beta")
    mass_floor: float = Field(default=1e-5, gt=0, description="epsilon")
    temperature: float = Field(default=1.0, ge=0, description="1 is the posterior; below it a colder one")
    batch_size: int = Field(default=5, ge=1, description="structures in a minibatch")
    first_batch_size: int | None = Field(default=None, ge=1, description="grows from this over the first half of the warm-up")
    prior_std: float = Field(default=1.0, gt=0, description="of every parameter, fan-in being divided out")
    dropout_rate: float = Field(default=0.1, gt=0, le=0.5, description="of scalar channels, for `method: dropout`")
    warm_start: bool = Field(default=True, description="later rounds of `sghmc` start from the last samples; others start anew")
    trunk: bool = Field(
        default=False, description="one warm-up for all chains, which branch off where it ends; in rounds that start anew"
    )
    new_label_share: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="share of a minibatch drawn from labels that the last samples have not seen, the gradient staying unbiased",
    )
    chains_at_once: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default=2, description="chains in one tensor program; 0: all, best on a GPU; auto: as measured at the start"
    )
    thinning: int = Field(default=20, ge=1, description="steps between the draws that the diagnostics read")

    @model_validator(mode="after")
    def _only_the_sampler_has_a_kernel(self) -> Self:
        wanted = {
            "kernel": "sghmc",
            "step_schedule": "constant",
            "subtract_gradient_noise": False,
            "new_label_share": 0.0,
            "trunk": False,
        }
        other = {name: getattr(self, name) for name, default in wanted.items() if getattr(self, name) != default}
        if self.method != "sghmc" and other:
            raise ConfigError(
                f"no options of the sampler beside `posterior.method: {self.method}`, which has no chains",
                ", ".join(f"{name}: {str(value).lower()}" for name, value in other.items()),
                f"take out {', '.join(f'`{name}`' for name in other)}, or set `method: sghmc`",
            )
        return self


class PriorConfig(Section):
    """A prior around weights learned before, N(theta_pre, tau^2 I) (method 5.7). Left out as a whole, it is N(0, I)."""

    source: str = Field(
        alias="from",
        description="a campaign; or the short name of a cheaper level of theory, learned first on this campaign's structures",
    )
    registry: str | None = Field(
        default=None,
        description="registry file of that campaign, relative to the campaign file; this campaign's own if left out",
    )
    posterior: str | None = Field(
        default=None, description="id of its posterior; if left out the latest at the first run, and the same ever after"
    )
    labels: int | None = Field(
        default=None, ge=8, description="cheap labels, of thermal structures of their own; the initial ones if left out"
    )
    warmup_steps: int | None = Field(
        default=None, ge=1, description="of the posterior on cheap labels; that of `posterior` if left out"
    )
    tau: float = Field(default=0.2, ge=1e-3, le=10.0, description="standard deviation of every parameter around its centre")
    centre: Literal["each", "best"] = Field(
        default="each", description="each: a chain keeps to a sample of its own; best: all to the one of highest log posterior"
    )

    @model_validator(mode="after")
    def _one_kind_of_source(self) -> "PriorConfig":
        own = [name for name in ("labels", "warmup_steps") if getattr(self, name) is not None]
        if self.level is None and own:
            raise ValueError(f"`{own[0]}` goes with a level of theory in `from`, one of {', '.join(SHORT_NAMES)}")
        if self.level is not None and self.posterior is not None:
            raise ValueError("`posterior` goes with a campaign in `from`")
        return self

    @model_serializer(mode="wrap")
    def _as_in_the_file(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = plain(self)
        return {"from": values.pop("source"), **values}

    @property
    def level(self) -> LevelOfTheory | None:
        """The cheaper level of theory, where `from` names one and no other registry is meant."""
        known = SHORT_NAMES.get(self.source) if self.registry is None else None
        return None if known is None else _LEVELS.validate_python(known)


class InitialConfig(Section):
    """Round 0: thermal displacements of the start structures along a model Hessian, labeled before any model exists."""

    structures: int = Field(default=30, ge=4, description="labels of round 0, shared out among the start structures")
    temperatures_kelvin: Temperatures = Field(
        default=(300.0, 600.0), min_length=1, description="of the displacements, taken in turn"
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
    """Committee dynamics: the probe, and the frames of it that are candidates (method 5.1, 5.5)."""

    temperature_kelvin: float = Field(default=300.0, gt=0, description="the temperature the potential is for")
    timestep_fs: float = Field(default=0.5, gt=0, le=2.0, description="of every trajectory")
    friction_per_fs: float = Field(default=0.02, gt=0, description="of Langevin dynamics, that of the evaluation frames too")
    trajectories: int = Field(default=16, ge=2, description="trajectories of the probe")
    trajectory_steps: int = Field(default=200, ge=10, description="steps of each trajectory")
    stop_ratio: float = Field(default=3.0, gt=1, description="a trajectory ends at this many times the median uncertainty")


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

    strategy: Literal["mixed", "adversarial", "dynamics", "random"] = Field(
        default="mixed",
        description="mixed: attacks and committee dynamics, half each; random: dynamics frames by no score, the control",
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
    trust_upper_ev_per_angstrom: float = Field(default=2.0, gt=0, description="uncertainty above which a proposal is 'failed'")
    duplicate_rmsd_angstrom: float = Field(
        default=0.02, gt=0, description="closer than this, after rotation and permutation, is the same geometry"
    )
    enantiomers: Literal["same", "distinct"] = Field(
        default="same",
        description="same: no label for a mirror image, which has the same energy and mirrored forces, and so has the model's "
        "(but with `parity: none`); distinct: it gets one",
    )


class EvaluationConfig(Section):
    """Frames never proposed, never trained or calibrated on, that only measure."""

    frames: int = Field(default=60, ge=0, description="0: none, the held-out calibration labels are all there is")
    temperature_kelvin: float = Field(default=300.0, gt=0, description="of the dynamics that makes the frames")
    dynamics: Literal["labeler", "xtb"] = Field(default="labeler", description="what moves the atoms; labels are the labeler's")
    spacing_fs: float = Field(default=50.0, gt=0, description="from one frame to the next")
    timestep_fs: float = Field(default=0.5, gt=0, le=2.0, description="of the dynamics that makes the frames")
    trajectories: int = Field(default=4, ge=1, description="that share the frames")


class StopConfig(Section):
    """When a campaign stops (method 5.5): REACHED, PLATEAU, or a CAP."""

    force_tolerance_ev_per_angstrom: float = Field(
        default=0.05, gt=0, description="a probe frame is accurate where its calibrated uncertainty is below this"
    )
    accurate_fraction: float = Field(default=0.9, gt=0, le=1, description="share of accurate probe frames that is wanted")
    stable_level: float = Field(default=0.8, gt=0, lt=1, description="lower confidence bound of stable probe trajectories")
    flat_decrease: float = Field(default=0.05, gt=0, lt=1, description="relative decrease of q95 that still counts as progress")
    flat_rounds: int = Field(default=2, ge=1, description="rounds in a row without progress that make a plateau")
    max_rounds: int = Field(default=10, ge=1, le=10_000, description="cap on rounds with a model")
    max_labels: int = Field(default=1000, ge=1, le=10_000_000, description="cap on labels, evaluation frames not counted")
    max_core_hours: float = Field(default=100.0, gt=0, description="cap on the computing of labels and steps together")
