"""The command line where all is well: what it shows first, what it imports, what it writes and says."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alloop.config import load_config
from flows.cli import main
from flows.cli_write import TEMPLATES

HEAVY = {"torch", "prefect", "sqlalchemy", "numpy", "ase", "rich"}
WATER = "3\n\nO 0.0 0.0 0.0\nH 0.96 0.0 0.0\nH -0.24 0.93 0.0\n"
Alloop = Callable[..., str]


@pytest.fixture
def alloop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Alloop:
    """Run the command line in this process, in a folder with water.xyz; what it said on standard output."""
    (tmp_path / "water.xyz").write_text(WATER)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["alloop", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        assert end.value.code == 0, said.err
        return said.out

    return call


def test_alone_it_shows_what_to_do_first(alloop: Alloop) -> None:
    said = alloop()
    assert said.index("alloop demo") < said.index("alloop init") < said.index("alloop run")


def test_help_imports_nothing_heavy() -> None:
    script = "import sys\nfrom flows.cli import app\ntry:\n app(['--help'])\nfinally:\n print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for command in (
        "init",
        "validate",
        "schema",
        "demo",
        "run",
        "round",
        "label",
        "status",
        "export",
        "import",
        "labels",
        "report",
        "compare",
        "bench",
    ):
        assert f"\n  {command} " in done.stdout
    assert not HEAVY & set(done.stderr.split())


def test_the_schema_knows_every_section(alloop: Alloop) -> None:
    schema = json.loads(alloop("schema"))
    assert {"name", "seed", "system", "labeler", "posterior", "stop"} <= set(schema["properties"])


@pytest.mark.parametrize(("labeler", "mover"), [("xtb", "labeler"), ("gfn1", "labeler"), ("pyscf", "xtb")])
def test_init_writes_a_file_that_loads(alloop: Alloop, labeler: str, mover: str) -> None:
    alloop("init", "ion", "--structure", "water.xyz", "--labeler", labeler, "--charge", "1")
    config = load_config(Path("ion.yaml"))
    assert (config.name, config.system.total_charge, config.system.spin_multiplicity) == ("ion", 1, 2)
    assert config.evaluation.dynamics == mover


def test_init_copies_the_structure_beside_the_campaign(alloop: Alloop, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "my molecule.xyz").write_text(WATER)
    alloop("init", "mine", "--structure", "elsewhere/my molecule.xyz")
    assert load_config(Path("mine.yaml")).system.structure == "my molecule.xyz"
    assert Path("my molecule.xyz").read_text() == WATER


def test_a_file_in_bohr_is_read_where_the_campaign_says_so(alloop: Alloop, tmp_path: Path) -> None:
    in_bohr = "3\n\nO 0.0 0.0 0.0\nH 1.814 0.0 0.0\nH -0.454 1.757 0.0\n"
    (tmp_path / "bohr.xyz").write_text(in_bohr)
    alloop("init", "drop", "--structure", "bohr.xyz", "--length-unit", "bohr")
    assert load_config(Path("drop.yaml")).system.length_unit == "bohr"
    assert json.loads(alloop("validate", "drop.yaml", "--no-measure", "--json"))["atoms"] == [3]


def test_validate_says_what_it_understood(alloop: Alloop) -> None:
    alloop("init", "water", "--structure", "water.xyz", "--labeler", "gfn2")
    facts = json.loads(alloop("validate", "water.yaml", "--json"))
    assert (facts["formulas"], facts["atoms"], facts["total_charge"], facts["spin_multiplicity"]) == (["H2O"], [3], 0, 1)
    assert facts["level_of_theory"] == "GFN2-xTB (tblite)"
    assert 0 < facts["cost"]["seconds_per_label"] < 5
    said = alloop("validate", "water.yaml", "--no-measure")
    assert "positions in Å, energies in eV, forces in eV/Å" in said
    assert "measured now" not in said


def test_the_example_is_the_demonstration() -> None:
    examples = Path(__file__).parents[2] / "examples"
    demo = (TEMPLATES / "demo.yaml").read_text(encoding="utf-8").format(seed=1, strategy="mixed")
    assert (examples / "ethanol.yaml").read_text(encoding="utf-8") == demo
    assert (examples / "ethanol.xyz").read_bytes() == (TEMPLATES / "ethanol.xyz").read_bytes()
