"""The campaign file: science only. Everything here is part of the campaign's identity; deployment is in `flows/settings.py`.

Frozen after validation; unknown keys are refused with the nearest known one; units are in the names.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from alloop.digests import digest_json
from alloop.errors import ConfigError, nearest
from alloop.labels.level_of_theory import SHORT_NAMES, LevelOfTheory
from alloop.plain_yaml import read_yaml
from alloop.proposal_sections import InitialConfig, ProposalConfig
from alloop.rng import stream_seed
from alloop.sections import EvaluationConfig, ModelConfig, PosteriorConfig, PriorConfig, Section, StopConfig, SystemConfig

MAX_NAME = 64
LONGEST_SHOWN = 200


def _expand_short_name(value: Any) -> Any:
    return SHORT_NAMES.get(value, value) if isinstance(value, str) else value


class CampaignConfig(Section):
    """One campaign."""

    name: str = Field(
        pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}$", description="of the campaign and of its registry NAME.db"
    )
    seed: int = Field(default=1, ge=0, lt=2**31, description="of every random stream: the same seed, the same campaign")
    system: SystemConfig
    labeler: Annotated[LevelOfTheory, BeforeValidator(_expand_short_name)]
    model: ModelConfig = ModelConfig()
    posterior: PosteriorConfig = PosteriorConfig()
    initial: InitialConfig = InitialConfig()
    proposals: ProposalConfig = ProposalConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    stop: StopConfig = StopConfig()
    prior: PriorConfig | None = None

    @model_validator(mode="after")
    def _prior_from_elsewhere(self) -> "CampaignConfig":
        if self.prior is None:
            return self
        if self.posterior.trunk and self.prior.centre == "each":
            raise ValueError("prior.centre of best with `posterior.trunk`: one trunk cannot start at a sample for each chain")
        if self.prior.level == self.labeler:
            raise ValueError("prior.from is the level of theory of the labeler itself; name a cheaper one, or a campaign")
        if self.prior.level is not None and len(f"{self.name}.{self.prior.source}") > MAX_NAME:
            raise ValueError(f"with prior.from, name and level must fit in {MAX_NAME} characters; shorten `name`")
        if self.prior.source == self.name and self.prior.registry is None:
            raise ValueError("prior.from is this campaign itself; name another one")
        if self.posterior.method != "sghmc":
            raise ValueError(
                f"posterior.method {self.posterior.method} has no prior to learn; set `method: sghmc`, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _first_labels_fit_the_cap(self) -> Self:
        if self.stop.max_labels < self.initial.structures:
            raise ConfigError(
                f"stop.max_labels of {self.initial.structures} or more, the labels that the first model learns from",
                f"max_labels: {self.stop.max_labels}",
                "raise `stop.max_labels`, or lower `initial.structures`",
            )
        return self

    @property
    def chain_seed(self) -> int:
        """Of the chains. The campaign that a prior is taken from may have the same `seed`; draws under a prior must not be
        those that made it."""
        if self.prior is None or self.prior.level is not None:
            return self.seed
        return stream_seed(self.seed, f"campaign {self.name}") % 2**31

    @property
    def digest(self) -> str:
        """Digest of every value, defaults included."""
        return digest_json(self.model_dump(mode="json"))


def parse_config(values: Any, *, source: str = "the campaign") -> CampaignConfig:
    """Validate a mapping; raises `ConfigError` naming the first wrong key, with the nearest known one."""
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: a mapping of sections", f"{type(values).__name__}", "start from `alloop init NAME`")
    try:
        return CampaignConfig.model_validate(values)
    except ValidationError as error:
        raise _explain(error, source) from None


def load_config(path: Path) -> CampaignConfig:
    """Read a YAML campaign file. Raises `ConfigError` for a missing or over-long file, bad YAML and bad values."""
    if not path.is_file():
        raise ConfigError("a campaign file", f"there is no file {path}", f"make one with `alloop init {path.stem}`")
    return parse_config(read_yaml(path), source=str(path))


def _explain(error: ValidationError, source: str) -> ConfigError:
    """Turn pydantic's first error into wanted / came / do."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    location = [str(part) for part in first["loc"]]
    where = ".".join(location)
    more = f" ({error.error_count() - 1} more to mend)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return ConfigError(f"{source}: known keys only", f"{where!r} is not one{more}", nearest(location[-1], known))
    if first["type"] == "missing":
        return ConfigError(f"{source}: the key {where!r}", f"it is not there{more}", f"add `{location[-1]}:`")
    if first["type"] == "union_tag_invalid" or (where == "labeler" and isinstance(first["input"], str)):
        return ConfigError(f"{source}: a labeler", f"{_shown(first['input'])}{more}", nearest(str(first["input"]), SHORT_NAMES))
    do = f"change `{where}`"
    if first["type"] == "literal_error" and isinstance(first["input"], str):
        do = nearest(first["input"], re.findall(r"'([^']*)'", first.get("ctx", {}).get("expected", "")))
    return ConfigError(f"{source}: {where}: {first['msg']}", f"{_shown(first['input'])}{more}", do)


def _shown(value: Any) -> str:
    """What was given, for a message: not the whole of what has no end."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _known_keys(location: list[str]) -> list[str]:
    """Field names of the section that a pydantic error location points into."""
    model: Any = CampaignConfig
    for part in location:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            annotation = fields[part].annotation
            model = next((each for each in get_args(annotation) if hasattr(each, "model_fields")), annotation)
        else:  # the tag of a discriminated union
            members = [m for m in get_args(model) if get_origin(m) is None and hasattr(m, "model_fields")]
            model = next((m for m in members if m.model_fields["program"].default == part), model)
    return [field.alias or name for name, field in getattr(model, "model_fields", {}).items()]


def config_changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each differing key, dotted: `posterior.samples: 8 -> 4`."""
    lines: list[str] = []
    for key in sorted({*old, *new}):
        before, after, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += config_changes(before, after, f"{name}.")
        elif before != after:
            lines.append(f"{name}: {before if key in old else '(not there)'} -> {after if key in new else '(not there)'}")
    return lines
