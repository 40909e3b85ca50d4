"""Fixtures of the unit tests."""

import sys
from collections.abc import Callable

import pytest

from flows.cli import main

Alloop = Callable[..., tuple[int, str, str]]


@pytest.fixture
def alloop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Alloop:
    """Run the command line in this process: exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["alloop", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, said.out, said.err

    return call
