"""Deployment: where things run and how many at once. Never part of a campaign's identity; read from ALLOOP_* variables."""

import os
from pathlib import Path

from pydantic import Field, SecretStr, TypeAdapter, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from alloop.errors import ConfigError, nearest

PREFIX = "ALLOOP_"
OTHERS = {"ALLOOP_DATA", "ALLOOP_TEST_POSTGRES_URL"}  # of benchmarks and tests


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """Read once, passed on, never changed. `ALLOOP_LABEL_WORKERS=4` sets `label_workers`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    database: SecretStr | None = Field(default=None, description="registry URL instead of the file beside the campaign file")
    label_workers: int = Field(default_factory=usable_cores, ge=1, description="labels computed side by side, one core each")
    label_pool: str | None = Field(default=None, description="work pool whose workers label, instead of the campaign's process")
    label_chunk: int = Field(default=8, ge=1, description="labels that a worker is given at once; more where a round has many")
    label_until: float | None = Field(
        default=None, description="seconds since 1970 after which no label is begun; `alloop worker --max-time` sets it"
    )
    sampler_processes: int = Field(default_factory=usable_cores, ge=1, description="processes that share the chains")
    device: str = Field(default="auto", description="of the sampler: auto, cpu, cuda or cuda:N")
    compiled: bool = Field(default=False, description="compile the sampler's gradient; worth its minutes in long chains")
    label_wall_seconds: float = Field(default=3600.0, gt=0, description="a label that takes longer is stopped")
    label_memory_mib: int = Field(default=4000, gt=0, description="memory that a label may use")
    ase_factories: str = Field(
        default="", description="factories that `program: ase` may call here beside ASE's own few, between commas"
    )
    lease_seconds: float = Field(default=90.0, gt=0, description="a worker unheard of for this long has lost its labels")
    heartbeat_seconds: float = Field(default=15.0, gt=0, description="time from one sign of life of a worker to the next")
    home: Path = Field(
        default=Path("~/.alloop"), description="folder of `alloop up`, and for results that PostgreSQL did not take"
    )
    debug: bool = Field(default=False, description="show tracebacks")

    @model_validator(mode="after")
    def _several_heartbeats_a_lease(self) -> "Settings":
        lease, heartbeat = self.lease_seconds, self.heartbeat_seconds
        if lease < 3 * heartbeat:
            raise ConfigError(
                "settings that fit: lease_seconds at least three times heartbeat_seconds",
                f"{PREFIX}LEASE_SECONDS of {lease:g} with {PREFIX}HEARTBEAT_SECONDS of {heartbeat:g}",
                f"set {PREFIX}LEASE_SECONDS to {3 * heartbeat:g} or more, or the other to {lease / 3:g} or less",
            )
        return self


def load_settings() -> Settings:
    """The settings of this environment. Raises `ConfigError` naming the variable that cannot be used, or that is none."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known | OTHERS:
            raise ConfigError(f"settings that alloop has, where a name begins with {PREFIX}", name, nearest(name, known))
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigError(f"settings that fit: {first['msg']}", f"the environment variable {name}", f"change {name}") from None


def wants_tracebacks() -> bool:
    """Whether ALLOOP_DEBUG says yes, in any of the words that settings take for it; nothing else is read."""
    try:
        return TypeAdapter(bool).validate_python(os.environ.get(f"{PREFIX}DEBUG", "false"))
    except ValidationError:
        return False
