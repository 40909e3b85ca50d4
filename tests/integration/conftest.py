"""What several integration tests stand on."""

import subprocess
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a Prefect server that somebody else runs."""
    home = tmp_path_factory.mktemp("prefect")
    script = (
        "import sys, pathlib, flows.server\n"
        "server = flows.server.prefect_server(pathlib.Path(sys.argv[1]))\n"
        "server.wait()\n"
        "print(server.api_url, flush=True)\n"
        "sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield {"PREFECT_API_URL": process.stdout.readline().strip(), "PREFECT_HOME": str(home)}
    process.communicate()
