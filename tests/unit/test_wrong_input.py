"""Every wrong input: the exit code, the three parts of the message on standard error, no traceback, and nothing lost."""

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from alloop.campaign.state import Decision, StopReason
from alloop.config import load_config
from alloop.errors import ConfigError
from alloop.registry.registry import Registry
from alloop.structures.convert import read_structures
from flows.cli import main

WATER = "3\n\nO 0.0 0.0 0.0\nH 0.96 0.0 0.0\nH -0.24 0.93 0.0\n"
BOHR = "3\n\nO 0.0 0.0 0.0\nH 1.814 0.0 0.0\nH -0.4535 1.7574 0.0\n"
Alloop = Callable[..., tuple[int, str]]


@pytest.fixture
def alloop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Alloop:
    """Run the command line in this process; the exit code and what it said on standard error."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["alloop", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code, capsys.readouterr().err

    return call


def _campaign(folder: Path, *, xyz: str | None = WATER, system: str = "", labeler: str = "scripted", more: str = "") -> Path:
    if xyz is not None:
        (folder / "water.xyz").write_text(xyz)
    file = folder / "water.yaml"
    file.write_text(f"name: water\nsystem: {{structure: water.xyz{system}}}\nlabeler: {labeler}\n{more}\n")
    return file


def _started(file: Path) -> Registry:
    """The registry of a campaign that was entered."""
    config = load_config(file)
    structures, _ = read_structures(file.parent / config.system.structure)
    registry = Registry.open(file.with_suffix(".db"), create=True)
    registry.create_campaign(config, structures)
    return registry


def _check(result: tuple[int, str], code: int, *parts: str) -> None:
    exit_code, said = result
    assert exit_code == code, said
    lines = said.splitlines()
    assert [line.split(":")[0] for line in lines] == ["wanted", "came", "do"], said
    for part in parts:
        assert part in said


ROWS = {
    "unknown key": ({"more": "proposals: {bacth: 3}"}, 2, ("'proposals.bacth' is not one", "did you mean 'batch'?")),
    "value out of range": ({"more": "proposals: {batch: 1}"}, 2, ("proposals.batch", "greater than or equal to 2")),
    "more start structures than initial ones": (
        {"xyz": WATER * 10},
        2,
        ("initial.structures of 40 or more", "30 for 10 start structures"),
    ),
    "a key twice": ({"more": "seed: 1\nseed: 2"}, 2, ("'seed' twice",)),
    "a list as a key": ({"more": "? [a, b]\n: 1"}, 2, ("in YAML", "line")),
    "hidden layer of no width": ({"more": "model: {radial_hidden: [0]}"}, 2, ("model.radial_hidden.0",)),
    "temperature below zero": ({"more": "initial: {temperatures_kelvin: [-5]}"}, 2, ("initial.temperatures_kelvin.0",)),
    "cap below the first labels": ({"more": "stop: {max_labels: 5}"}, 2, ("stop.max_labels of 30 or more",)),
    "more charge than an integer holds": ({"system": ", total_charge: 99999999999999999999"}, 2, ("system.total_charge",)),
    "more electrons than atoms hold": ({"system": ", total_charge: -1000"}, 2, ("a total_charge that atoms can hold",)),
    "no structure file": ({"xyz": None}, 2, ("there is no file", "water.xyz")),
    "charge and spin": ({"system": ", spin_multiplicity: 2"}, 2, ("leaves 10 electrons", "use a multiplicity of 1, 3")),
    "not a number": ({"xyz": WATER.replace("0.93", "nan")}, 2, ("finite coordinates", "atoms [2]")),
    "overlapping atoms": ({"xyz": WATER.replace("0.96", "0.50")}, 2, ("atoms no closer", "0.500 Å apart")),
    "units": ({"xyz": BOHR}, 2, ("coordinates in Å", "bohr")),
    "element without parameters": (
        {"xyz": "2\n\nU 0 0 0\nO 0 0 1.8\n", "labeler": "gfn2"},
        3,
        ("1 to 86", "atomic numbers 92"),
    ),
    "prior from a name that is nothing": ({"more": "prior: {from: xbt}"}, 5, ("prior.from: 'xbt'", "did you mean 'xtb'?")),
    "prior from a registry that is not there": ({"more": "prior: {from: water, registry: other.db}"}, 5, ("other.db",)),
    "prior from itself": ({"more": "prior: {from: water}"}, 2, ("this campaign itself", "name another one")),
    "prior from its own level": ({"more": "prior: {from: scripted}"}, 2, ("the level of theory of the labeler itself",)),
    "prior of no width": ({"more": "prior: {from: xtb, tau: 0}"}, 2, ("prior.tau", "greater than or equal to 0.001")),
    "prior with an unknown key": ({"more": "prior: {from: xtb, sigma: 1}"}, 2, ("'prior.sigma' is not one", "from")),
    "prior beside a baseline": (
        {"more": "prior: {from: xtb}\nposterior: {method: ensemble}"},
        2,
        ("posterior.method ensemble has no prior to learn",),
    ),
    "new labels beside a baseline": (
        {"more": "posterior: {method: ensemble, new_label_share: 0.4}"},
        2,
        ("no options of the sampler", "new_label_share: 0.4"),
    ),
    "a variable of atoms that are not there": (
        {"more": "proposals: {attack: {variables: [{angle: [1, 0, 3]}]}}"},
        2,
        ("atoms 0 to 2 in angle 1-0-3", "atom 3"),
    ),
    "a variable of atoms that are not bonded": (
        {"more": "proposals: {attack: {variables: [{angle: [0, 1, 2]}]}}"},
        2,
        ("atoms 1 and 2 are not bonded", "atom 1 is bonded to 0"),
    ),
    "a variable that is misspelt": (
        {"more": "proposals: {attack: {variables: [{angel: [1, 0, 2]}]}}"},
        2,
        ("'proposals.attack.variables.0.angel' is not one", "did you mean 'angle'?"),
    ),
    "a strain without a cell": ({"more": "proposals: {attack: {strain: 0.02}}"}, 2, ("periodic in three directions",)),
    "labels of a prior that needs none": ({"more": "prior: {from: other, labels: 9}"}, 2, ("`labels` goes with a level",)),
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("command", ["run", "validate"])
def test_a_wrong_file_is_refused(name: str, command: str, tmp_path: Path, alloop: Alloop) -> None:
    changes, code, parts = ROWS[name]
    file = _campaign(tmp_path, **changes)
    _check(alloop(command, file), code, *parts)
    assert not (tmp_path / "water.db").exists()


def test_a_linked_campaign_lives_beside_the_link(tmp_path: Path, alloop: Alloop) -> None:
    file, link = _campaign(tmp_path), tmp_path / "elsewhere" / "water.yaml"
    link.parent.mkdir()
    link.symlink_to(file)
    _check(alloop("run", link), 2, "beside the link", f"the link points to {file.resolve()}")


def test_a_missing_campaign_file(tmp_path: Path, alloop: Alloop) -> None:
    _check(alloop("run", tmp_path / "nothing.yaml"), 2, "there is no file", "alloop init nothing")


def test_a_round_of_a_stopped_campaign_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _campaign(tmp_path)
    with _started(file) as registry:
        registry.stop_campaign("water", Decision(stop=StopReason.CAP_ROUNDS, sentence="The cap came.", figures={}))
    monkeypatch.setattr(sys, "argv", ["alloop", "round", str(file)])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    assert "has stopped: The cap came." in said
    assert f"change `stop` in {file}" in said


def test_a_changed_campaign_is_refused_with_a_diff(tmp_path: Path, alloop: Alloop) -> None:
    file = _campaign(tmp_path)
    _started(file).close()
    _campaign(tmp_path, more="proposals: {batch: 7}")
    _check(alloop("run", file), 5, "proposals.batch: 20 -> 7", "another `name`")


@pytest.mark.parametrize("own", ["water.db", "water.yaml", "water.files/x.xyz", "elsewhere/../water.db"])
@pytest.mark.parametrize("command", ["export", "report"])
def test_a_campaigns_own_files_are_never_written_over(command: str, own: str, tmp_path: Path, alloop: Alloop) -> None:
    file = _campaign(tmp_path)
    _started(file).close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    _check(alloop(command, file, "--output", tmp_path / own), 2, "another file to write")
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_registry_of_a_newer_version_is_left_alone(tmp_path: Path, alloop: Alloop) -> None:
    file = _campaign(tmp_path)
    _started(file).close()
    with sqlite3.connect(tmp_path / "water.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    before = (tmp_path / "water.db").read_bytes()
    for command in ("run", "status", "label"):
        _check(alloop(command, file), 5, "newer alloop", "pip install --upgrade alloop")
    assert (tmp_path / "water.db").read_bytes() == before


def test_a_missing_extra_names_its_install_line(tmp_path: Path, alloop: Alloop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyscf", None)
    _check(alloop("run", _campaign(tmp_path, labeler="pyscf")), 4, "pip install 'alloop[pyscf]'")
    monkeypatch.setitem(sys.modules, "rdkit", None)
    monkeypatch.chdir(tmp_path)
    _check(alloop("init", "ethanol", "--smiles", "CCO"), 4, "pip install 'alloop[smiles]'")
    assert not (tmp_path / "ethanol.yaml").exists()
    factory = "{program: ase, factory: 'mycalculators:Potential'}"
    _check(alloop("run", _campaign(tmp_path, labeler=factory)), 4, "export ALLOOP_ASE_FACTORIES=mycalculators:Potential")
    monkeypatch.setenv("ALLOOP_ASE_FACTORIES", "mycalculators:Potential")
    _check(alloop("run", _campaign(tmp_path, labeler=factory)), 4, "put the folder of mycalculators.py on PYTHONPATH")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("init", "mol"), ("one of --structure FILE and --smiles STRING", "neither")),
        (("init", "mol", "--structure", "water.xyz", "--labeler", "gfn3"), ("a labeler", "'gfn3'", "did you mean")),
        (("init", "water", "--structure", "water.xyz"), ("to write water.yaml", "it is there already")),
        (("init", "a/b", "--structure", "water.xyz"), ("a name of letters", "'a/b'")),
        (("init", "mol", "--structure", "nothing.xyz"), ("there is no file nothing.xyz",)),
    ],
)
def test_init_writes_over_nothing(
    arguments: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path, alloop: Alloop, monkeypatch: pytest.MonkeyPatch
) -> None:
    _campaign(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    _check(alloop(*arguments), 2, *parts)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_setting_that_cannot_be(tmp_path: Path, alloop: Alloop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOOP_LABEL_WORKERS", "none")
    _check(alloop("run", _campaign(tmp_path)), 2, "ALLOOP_LABEL_WORKERS")
    monkeypatch.setenv("ALLOOP_LABEL_WORKERS", "2")
    monkeypatch.setenv("ALLOOP_LEASE_SECONDS", "1")
    _check(alloop("run", _campaign(tmp_path)), 2, "ALLOOP_LEASE_SECONDS of 1", "set ALLOOP_LEASE_SECONDS to 45 or more")


def test_a_setting_that_is_none(tmp_path: Path, alloop: Alloop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOOP_LABEL_WORKER", "2")
    _check(alloop("run", _campaign(tmp_path)), 2, "ALLOOP_LABEL_WORKER\n", "did you mean 'ALLOOP_LABEL_WORKERS'?")


def test_a_prefect_server_that_is_not_there(tmp_path: Path, alloop: Alloop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    code, said = alloop("run", _campaign(tmp_path))
    assert code == 1
    assert "Connection refused" in said
    assert "unset PREFECT_API_URL" in said


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:port/api"])
def test_a_prefect_address_that_is_none(address: str, tmp_path: Path, alloop: Alloop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    code, said = alloop("run", _campaign(tmp_path))
    assert code == 2, said
    assert f"came:   {address!r}\ndo:     correct it, or unset PREFECT_API_URL" in said


OUTPUTS = {"a folder": ".", "below a file": "water.xyz/out", "no file system for it": "/proc/out"}


@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_outputs_that_cannot_be_written(output: str, tmp_path: Path, alloop: Alloop) -> None:
    file = _campaign(tmp_path)
    _started(file).close()
    before = sorted(tmp_path.rglob("*"))
    for arguments in (("export", file), ("export", file, "--format", "npz"), ("report", file)):
        _check(alloop(*arguments, "--output", tmp_path / output), 2, "a file to write" if output == "." else "to write")
    if output != ".":
        _check(alloop("demo", "--directory", tmp_path / output), 2, "to write")
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(tmp_path.parent.glob(".*.tmp"))


def test_an_unknown_option_ends_with_2(alloop: Alloop) -> None:
    code, said = alloop("run", "--fast")
    assert code == 2
    assert "--fast" in said


def test_a_traceback_only_on_request(tmp_path: Path, alloop: Alloop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOOP_DEBUG", "off")
    _check(alloop("run", tmp_path / "nothing.yaml"), 2, "there is no file")
    for word in ("1", "true", "yes"):
        monkeypatch.setenv("ALLOOP_DEBUG", word)
        with pytest.raises(ConfigError, match="there is no file"):
            alloop("run", tmp_path / "nothing.yaml")
