"""The documentation says what is so: commands are run or listed, links lead somewhere, examples give what they say."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = tomllib.loads((ROOT / "docs" / "commands.toml").read_text(encoding="utf-8"))
PACKAGES = ("alloop", "labelers", "flows")
SHELLS = ("bash", "console", "sh", "shell")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
RECORD_PARTS = ("## Context", "## Decision", "## Consequences", "## What would change our mind")


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _prose(page: Path) -> str:
    """A page without its fenced blocks and inline code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", _text(page)))


def _commands() -> Iterator[str]:
    """Commands of shell blocks, without prompt and comment."""
    for page in PAGES:
        for match in FENCE.finditer(_text(page)):
            if match[1] in SHELLS:
                lines = (line.removeprefix("$ ").split(" # ")[0].strip() for line in match[2].splitlines())
                yield from (line for line in lines if line)


def _functions(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(_text(file))) if isinstance(node, ast.FunctionDef)}


def _anchors(page: Path) -> set[str]:
    """The names that a heading gets where Markdown is shown: lower case, dashes for blanks, punctuation dropped."""
    found: Counter[str] = Counter()
    anchors = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", _text(page)), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return anchors


def _modules_with_examples() -> list[str]:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    return [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if ">>> " in _text(file)]


def test_every_fence_names_its_language():
    bare = [f"{_name(page)}: {match[2][:40]!r}" for page in PAGES for match in FENCE.finditer(_text(page)) if not match[1]]
    assert not bare


def test_every_command_is_run_or_listed():
    listed = {*COMMANDS["tested"], *COMMANDS["not_run"]}
    assert set(_commands()) - listed == set(), "add them to docs/commands.toml"


def test_no_listed_command_is_stale():
    listed = {*COMMANDS["tested"], *COMMANDS["not_run"]}
    assert listed - set(_commands()) == set(), "take them out of docs/commands.toml"
    assert set(COMMANDS["tested"]) & set(COMMANDS["not_run"]) == set()


@pytest.mark.parametrize("test", sorted(set(COMMANDS["tested"].values())))
def test_every_test_that_is_named_exists(test):
    file, _, function = test.partition("::")
    assert function in _functions(ROOT / file)


def test_every_reason_says_something():
    assert all(len(reason.split()) >= 4 for reason in (*COMMANDS["not_run"].values(), *COMMANDS["made"].values()))


def test_the_version_is_said():
    code = "from flows.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"alloop \d+\.\d+\S*\n", done.stdout)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    dead = []
    for target in LINK.findall(_prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if _name(file) in COMMANDS["made"]:
            continue
        if not file.is_file() or (anchor and anchor not in _anchors(file)):
            dead.append(target)
    assert not dead


def test_what_is_to_be_made_is_linked():
    linked = {
        _name((page.parent / target).resolve()) for page in PAGES for target in LINK.findall(_text(page)) if ":" not in target
    }
    assert set(COMMANDS["made"]) <= linked


def test_every_page_is_reached_from_the_first():
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        for target in LINK.findall(_prose(page)):
            file = (page.parent / target.partition("#")[0]).resolve()
            if file in PAGES and file not in reached:
                waiting.append(file)
    assert [_name(page) for page in PAGES if page not in reached] == []


@pytest.mark.parametrize("module", _modules_with_examples())
def test_every_example_of_the_code_runs(module):
    done = doctest.testmod(importlib.import_module(module))
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize("page", [page for page in PAGES if ">>> " in page.read_text(encoding="utf-8")], ids=_name)
def test_every_example_of_the_pages_runs(page):
    """A closing fence would be read as output, so the blocks are tested without it."""
    examples = "\n".join(match[2] for match in FENCE.finditer(_text(page)) if match[1] == "python" and ">>> " in match[2])
    parsed = doctest.DocTestParser().get_doctest(examples, {}, _name(page), None, None)
    assert parsed.examples
    assert doctest.DocTestRunner().run(parsed).failed == 0


@pytest.mark.parametrize(
    "arguments", [["generate.py", "--check"], ["results.py", "check"], ["tables.py", "check"]], ids=lambda each: each[0]
)
def test_what_is_generated_is_as_the_code_has_it(arguments):
    script, *options = arguments
    command = [sys.executable, str(ROOT / "docs" / script), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_layers_of_the_page_are_those_that_are_checked():
    project = tomllib.loads(_text(ROOT / "pyproject.toml"))
    contract = next(each for each in project["tool"]["importlinter"]["contracts"] if each["type"] == "layers")
    page = _text(ROOT / "docs" / "architecture.md")
    block = page.split("<!-- layers:begin -->\n")[1].split("<!-- layers:end -->")[0]
    told = [re.findall(r"`([^`]+)`", line) for line in block.splitlines()]
    assert told == [[module.strip() for module in layer.split("|")] for layer in contract["layers"]]


def test_sections_of_the_method_that_the_code_cites_are_there():
    headings = set(re.findall(r"^#{2,3} (\d(?:\.\d)?)", _text(ROOT / "docs" / "method.md"), re.MULTILINE))
    files = [file for folder in (*PACKAGES, "tests") for file in (ROOT / folder).rglob("*.py")]
    cited = {
        (number, _name(file))
        for file in files
        for numbers in re.findall(r"\bmethod ((?:\d(?:\.\d)?(?:, | and )?)+)", _text(file))
        for number in re.findall(r"\d(?:\.\d)?", numbers)
    }
    assert len(cited) > 10
    assert {(number, file) for number, file in cited if number not in headings} == set()


@pytest.mark.parametrize("record", sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")), ids=lambda each: each.stem)
def test_decisions_have_their_parts(record):
    text = _text(record)
    assert re.match(rf"# {record.stem[:3]}: \S", text)
    assert re.search(r"^\*Source: ", text, re.MULTILINE)
    places = [text.find(f"\n{part}\n") for part in RECORD_PARTS]
    assert places == sorted(places)
    assert min(places) > 0
    title = re.escape(text.splitlines()[0].split(": ", 1)[1])
    assert re.search(rf"\[{record.stem[:3]}\]\({record.name}\) \| {title} \|", _text(record.parent / "index.md"))


def test_nothing_is_shouted():
    loud = [
        f"{_name(page)}: {line.strip()}"
        for page in PAGES
        for line in _prose(page).splitlines()
        if re.search(r"\w!(\s|$)", line)
    ]
    assert not loud
