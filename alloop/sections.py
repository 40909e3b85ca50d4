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
_LEVELS: TypeAdapter[LevelOfTheory] = TypeAdapter(LevelOfTheory)


class Section(BaseModel):
    """A frozen section of the campaign file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SystemConfig(Section):
    """What is studied."""

    structure: str = Field(
        description="structure file (xyz, extxyz, cif, POSCAR), relative to the campaign file; one system or several"
    )
    length_unit: Literal["Angstrom", "bohr", "nm", "pm"] | None = Field(
        default=None, description="of the structure file; if left out it is read in Å, and refused where that cannot be"
    )
    total_charge: int | None = Field(
        default=None,
        ge=-MAX_CHARGE,
        le=MAX_CHARGE,
        description="in e, of every structure; if left out, what the file says of each, or 0",
    )
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
