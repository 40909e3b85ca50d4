"""YAML of plain data: no objects, no aliases (which make small files expand without limit), no key twice."""

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from alloop.errors import ConfigError

MAX_FILE_BYTES = 50_000  # twenty times a long one; reading it takes less than a second


def read_yaml(path: Path) -> Any:
    """What the file says. Raises `ConfigError` for an over-long file and for bad YAML."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(
            f"a campaign file below {MAX_FILE_BYTES} bytes", f"{path.stat().st_size} bytes", "is this the right file?"
        )
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, Loader=_PlainLoader)  # noqa: S506  (a SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path} in YAML", " ".join(str(error).split()), "mend the line named above") from None


class _PlainLoader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not used in campaign files")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = next((name for name, count in counts.items() if count > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key {twice!r} twice in one section, {node.start_mark}")
        return super().construct_mapping(node, deep)
