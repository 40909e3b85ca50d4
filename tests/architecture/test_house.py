"""The habits of the house, checked: direction of imports, budgets, and what no file of it may do.

Budgets: a file has at most 400 lines and a function at most 60 and 7 parameters; `EXCEPTIONS` lists in public what is above,
none of it above 600 and 100, and the list should shrink: an entry that is no longer needed fails too.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("alloop", "labelers", "flows")
BROAD_EXCEPT = "labelers/attempt.py"

SOFT = {"lines of a file": 400, "lines of a function": 60, "parameters": 7}
HARD = {"lines of a file": 600, "lines of a function": 100, "parameters": 10}
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("lines of a file", "tests/unit/test_report.py"): "one fixture campaign serves every figure and table; to be split by room",
    ("parameters", "flows/cli_bench.py::bench"): "each is an option of the command line, handed on as one value",
    ("parameters", "flows/cli_exchange.py::imported"): "each is an option of the command line",
    ("parameters", "flows/cli_write.py::init"): "each is an option of the command line",
}
# Pickles never touch a disk: jobs and results cross the pipe between a pool and the worker it started.
PICKLE_EXCEPTIONS = {"labelers/isolate.py", "labelers/worker.py"}
# Who may read the environment: where a process begins, where it starts another, and what may be called in there.
ENVIRONMENT = ("flows/", "labelers/supervisor.py", "labelers/ase_calculator.py")
PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
PUBLIC_HOSTS = {"arxiv.org", "doi.org", "github.com", "json-schema.org", "pyscf.org", "www.vasp.at", "www.w3.org"}
LOOPBACK = "127.0.0.1"
READERS_OWN = "host"  # HOST in an address stands for a machine of the reader
# Tests of file systems invent their paths.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|mnt|scratch|tmp|home)/")
MACHINE_PATH_IN_TESTS = re.compile(r"(?<![\w.~-])/(?:work|root|scratch)/")


@dataclass(frozen=True)
class Source:
    """A tracked Python file: its path from the root, text and syntax tree."""

    path: str
    text: str
    tree: ast.Module


def _tracked(*patterns: str) -> list[str]:
    """Files that git holds or would take up, so that a new file is checked before it is committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (ROOT / name).is_file())


@cache
def _sources() -> tuple[Source, ...]:
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in _tracked("*.py")}
    return tuple(Source(name, text, ast.parse(text)) for name, text in texts.items())


def _of_packages() -> list[Source]:
    return [source for source in _sources() if source.path.split("/")[0] in PACKAGES]


def _functions(source: Source) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function by its qualified name."""

    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            name = f"{prefix}{child.name}" if named else prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield name, child
            yield from walk(child, f"{name}." if named else prefix)

    yield from walk(source.tree, "")


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    taken = function.args
    names = [each.arg for each in (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def _sizes() -> Iterator[tuple[str, str, int]]:
    """Each budget, what it is about, and how much of it is used. Fixtures of tests are arguments and not counted."""
    for source in _sources():
        yield "lines of a file", source.path, source.text.count("\n")
        for name, function in _functions(source):
            assert function.end_lineno is not None
            yield "lines of a function", f"{source.path}::{name}", function.end_lineno - function.lineno + 1
            if not source.path.startswith("tests/"):
                yield "parameters", f"{source.path}::{name}", len(_parameters(function))


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of names and attributes, "" of anything else."""
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return f"{inner}.{node.attr}" if inner else ""
    return node.id if isinstance(node, ast.Name) else ""


def _calls(source: Source) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            yield _dotted(node.func), node


def _imports(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def _places(found: list[str]) -> str:
    return "\n".join(found)


def test_imports_go_down_only():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_budgets_are_kept():
    above = [f"{what}: {where}: {size} > {SOFT[what]}" for what, where, size in _sizes() if size > SOFT[what]]
    unlisted = [each for each in above if tuple(each.split(": ")[:2]) not in EXCEPTIONS]
    assert not unlisted, _places(unlisted)


def test_no_exception_is_above_the_hard_limit():
    above = [f"{what}: {where}: {size} > {HARD[what]}" for what, where, size in _sizes() if size > HARD[what]]
    assert not above, _places(above)


def test_the_list_of_exceptions_holds_nothing_stale():
    needed = {(what, where) for what, where, size in _sizes() if size > SOFT[what]}
    stale = [f"{what}: {where}" for what, where in EXCEPTIONS if (what, where) not in needed]
    assert not stale, f"no longer needed, take it off the list:\n{_places(stale)}"


def test_no_default_is_mutable():
    found = []
    for source in _sources():
        for name, function in _functions(source):
            defaults = [*function.args.defaults, *(each for each in function.args.kw_defaults if each is not None)]
            mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
            made = [d for d in defaults if isinstance(d, ast.Call) and _dotted(d.func) in ("list", "dict", "set", "bytearray")]
            if made or any(isinstance(default, mutable) for default in defaults):
                found.append(f"{source.path}:{function.lineno} {name}")
    assert not found, _places(found)


@pytest.mark.parametrize("forbidden", ["chdir", "set_default_dtype", "set_default_device", "manual_seed_all", "fchdir"])
def test_nothing_changes_the_state_of_the_whole_process(forbidden):
    found = [
        f"{source.path}:{node.lineno}"
        for source in _of_packages()
        for name, node in _calls(source)
        if name.split(".")[-1] == forbidden
    ]
    assert not found, _places(found)


def test_no_random_numbers_come_from_global_streams():
    """`np.random.normal()` and `torch.manual_seed()` share one stream with everybody; only generators are passed on."""
    allowed = {"np.random.default_rng", "np.random.Generator", "np.random.SeedSequence", "np.random.PCG64"}
    found = [
        f"{source.path}:{node.lineno} {name}"
        for source in _of_packages()
        for name, node in _calls(source)
        if (name.startswith(("np.random.", "numpy.random.")) and name.replace("numpy.", "np.") not in allowed)
        or name in ("torch.manual_seed", "torch.seed")
        or name.startswith("random.")
    ]
    assert not found, _places(found)


def test_nothing_is_unpickled_or_evaluated():
    found = []
    for source in _of_packages():
        picklers = {module.split(".")[0] for module in _imports(source)} & PICKLERS
        if picklers and source.path not in PICKLE_EXCEPTIONS:
            found.append(f"{source.path} imports {', '.join(picklers)}")
        for name, node in _calls(source):
            unsafe = name in ("eval", "exec", "compile", "__import__", "torch.load", "torch.save")
            allows = any(k.arg == "allow_pickle" and getattr(k.value, "value", True) is not False for k in node.keywords)
            unstated = name in ("np.load", "numpy.load") and not any(k.arg == "allow_pickle" for k in node.keywords)
            if unsafe or allows or unstated:
                found.append(f"{source.path}:{node.lineno} {name}")
    assert not found, _places(found)


def test_the_one_broad_except_is_where_it_belongs():
    broad = []
    for source in _of_packages():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler):
                caught = [node.type] if not isinstance(node.type, ast.Tuple) else node.type.elts
                names = {"" if each is None else _dotted(each).split(".")[-1] for each in caught}
                if names & {"", "Exception", "BaseException"}:
                    broad.append(source.path)
    assert broad == [BROAD_EXCEPT]


def test_package_init_files_are_empty():
    filled = [source.path for source in _of_packages() if source.path.endswith("__init__.py") and source.text.strip()]
    assert not filled


def test_the_library_reads_no_environment_variable():
    found = [
        f"{source.path}:{node.lineno}"
        for source in _of_packages()
        if not source.path.startswith(ENVIRONMENT)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute) and _dotted(node) in ("os.environ", "os.environb", "os.getenv")
    ]
    assert not found, _places(found)


def test_labels_are_claimed_by_prefect_runs_only():
    """One module claims; whoever calls it is a flow or a task of Prefect."""
    callers = {"claim": [], "label_waiting": [], "hand_out": []}
    for source in _of_packages():
        for outer in source.tree.body:
            kinds = {_dotted(getattr(each, "func", each)) for each in getattr(outer, "decorator_list", [])}
            for node in ast.walk(outer):
                name = _dotted(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
                if name in callers:
                    callers[name].append((source.path, bool(kinds & {"flow", "step"})))
    assert {path for path, _ in callers["claim"]} == {"flows/labeling.py"}
    found = callers["label_waiting"] + callers["hand_out"]
    assert {path for path, _ in found} == {"flows/label.py", "flows/label_batch.py"}
    assert all(by_prefect for _, by_prefect in found)


def test_every_module_says_what_it_is():
    silent = [s.path for s in _of_packages() if s.text.strip() and not ast.get_docstring(s.tree) and "__about__" not in s.path]
    assert not silent, _places(silent)


def _texts() -> Iterator[tuple[str, str]]:
    """Every tracked file that is text, with its lines numbered."""
    for name in _tracked():
        content = (ROOT / name).read_bytes()
        if b"\0" not in content:
            yield name, content.decode("utf-8")


def test_no_file_names_a_path_of_a_machine():
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in _texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if (MACHINE_PATH_IN_TESTS if name.startswith("tests/") else MACHINE_PATH).search(line)
    ]
    assert not found, _places(found)


def test_no_file_names_a_host_but_public_references():
    found = []
    for name, text in _texts():
        for address in re.findall(r"""https?://[^\s)\]"'<>`]+""", text):
            host = urlsplit(address).hostname if "{" not in address else address.split("//")[1].split(":")[0]
            if host not in {*PUBLIC_HOSTS, READERS_OWN} and not (host == LOOPBACK and not name.endswith(".md")):
                found.append(f"{name}: {address}")
    assert not found, _places(found)
