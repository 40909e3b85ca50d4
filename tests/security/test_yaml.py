"""S2: campaign files that build objects, or grow without limit: nothing runs, each is refused within a second and 200 MB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "name: water\nsystem: {structure: water.xyz}\nlabeler: scripted\n"
SECONDS, MIB = 1.0, 200.0
CALLS = ("os.system", "posix.system", "subprocess.Popen", "subprocess.check_output", "builtins.eval", "builtins.exec")
FACTORIES = ("os:system", "posix:system", "subprocess:Popen", "subprocess:check_output", "builtins:exec", "pty:spawn")
# Reads each file as `alloop run` would, and says how it went, for how long, and how much memory was ever in use.
READER = """
import json, sys, time
from pathlib import Path
from alloop.config import load_config
from alloop.errors import AlloopError
from labelers.catalog import labeler_for
found = {}
for path in sorted(Path(sys.argv[1]).glob("*.yaml")):
    start = time.process_time()
    try:
        config = load_config(path)
        how = "read" if labeler_for(config.labeler).availability().available else "refused"
    except AlloopError as error:
        how = "refused"
    found[path.stem] = (how, time.process_time() - start)
(most,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps({"files": found, "mib": int(most) / 1024}))
"""


def payloads(canary: Path) -> dict[str, bytes]:
    """Sixty files by name."""
    touch = f"touch {canary}"
    made = {f"apply {call}": f"x: !!python/object/apply:{call} ['{touch}']" for call in CALLS}
    made |= {f"new {call}": f"x: !!python/object/new:{call} {{args: ['{touch}']}}" for call in CALLS[:3]}
    made |= {f"factory {each}": f"labeler: {{program: ase, factory: '{each}'}}" for each in FACTORIES}
    tags = ("name:os.system", "module:os", "object:os._wrap_close", "tuple", "dict", "long", "complex", "bytes", "none", "str")
    made |= {f"tag {tag}": f"x: !!python/{tag} {{}}" for tag in tags}
    made |= {f"plain {tag}": f"x: !!{tag} {value}" for tag, value in {"set": "{a}", "binary": "aGk=", "omap": "[a: 1]"}.items()}
    made |= {
        "custom tag": "x: !env PATH",
        "another handle": "%TAG ! tag:python.org,2002:\n---\nx: !python/name:os.system ''",
        "version": "%YAML 9.9\n---\nx: 1",
        "several documents": "---\nname: other\n---\nname: third",
        "aliases": "a: &a [x]\nb: *a",
        "laughs": "\n".join([f"a0: &a0 [{'x, ' * 9}]", *(f"a{n + 1}: &a{n + 1} [{f'*a{n}, ' * 9}]" for n in range(9))]),
        "merged": "a: &a {x: 1}\nb: {<<: *a}",
        "without end": "a: &a [*a]",
        "deep lists": "x: " + "[" * 40_000,
        "deep mappings": "x: " + "{a: " * 9_000,
        "deep blocks": "\n".join(" " * depth + "a:" for depth in range(300)),
        "many keys": "\n".join(f"k{number}: 1" for number in range(6_000)),
        "one key often": "a: 1\n" * 9_000,
        "many dots": "x: " + "1." * 20_000,
        "a long number": "seed: " + "9" * 45_000,
        "a number by sixties": "seed: " + "1:" * 20_000 + "1",
        "a long name": "name: " + "a" * 45_000,
        "too long": "# " + "x" * 2_000_000,
        "infinity": "seed: .inf",
        "no number": "model: {cutoff_angstrom: .nan}",
        "no day": "x: 2001-99-99",
        "no base 64": "x: !!binary '%%%'",
        "a key that is a list": "? [a, b]\n: 1",
        "a key that is a mapping": "? {a: b}\n: 1",
        "dunder": "__class__: os",
        "a setting of the model": "model_config: {extra: allow}",
        "a template": "name: '{{ 7 * 7 }}'",
        "a shell": "name: '$(touch x)'",
        "a path": "name: ../water",
        "a number as name": "name: 12",
        "an alias of nothing": "x: *nothing",
    }
    wrapped = {name: text if text.startswith(("%", "name: water")) else _with_head(text) for name, text in made.items()}
    raw = {"utf-16": HEAD.encode("utf-16"), "nul": HEAD.encode() + b"x: \0", "latin": HEAD.encode() + b"x: \xe9", "empty": b""}
    return {name: text.encode() for name, text in wrapped.items()} | raw


def _with_head(text: str) -> str:
    """A campaign file that is whole but for `text`: keys that it has itself are left out of the head."""
    given = {line.split(":")[0] for line in text.splitlines()}
    return "\n".join([line for line in HEAD.splitlines() if line.split(":")[0] not in given] + [text])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, tuple[str, float]], float, list[str]]:
    """How each file went, the most memory in MiB, and what lies in the folder of the canary."""
    folder = tmp_path_factory.mktemp("yaml")
    canary = folder / "executed"
    for name, content in payloads(canary).items():
        (folder / f"{name.replace('/', '-')}.yaml").write_bytes(content)
    (folder / "water.xyz").write_text("1\n\nO 0 0 0\n")
    (folder / "sound.yaml").write_text(HEAD)
    done = subprocess.run([sys.executable, "-c", READER, str(folder)], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["files"], found["mib"], [path.name for path in folder.iterdir() if not path.name.endswith((".yaml", ".xyz"))]


def test_nothing_runs_and_all_are_refused(outcome) -> None:
    files, _, made = outcome
    assert len(files) >= 61
    assert made == []
    assert files["sound"][0] == "read"
    assert [name for name, (how, _) in files.items() if how != "refused"] == ["sound"]


def test_none_takes_long_or_much(outcome) -> None:
    files, mib, _ = outcome
    assert {name: seconds for name, (_, seconds) in files.items() if seconds > SECONDS} == {}
    assert mib < MIB
