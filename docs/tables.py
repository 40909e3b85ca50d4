"""Tables of the pages in docs/ that have them: recorded from `alloop bench NAME --output` or `alloop stress NAME --output`,
then filled in. No number is typed by hand.

    alloop bench step --compile --output benchmarks/results/step.json
    python docs/tables.py fill
    python docs/tables.py check

`fill` writes a table between the markers of each benchmark. `check` says whether they are there as the files have them. Exit
codes: 0 when all is well, 1 otherwise.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from alloop.files import write_atomically
from benchmarks.catalog import CATALOG, STUDIES
from benchmarks.evidence import cost
from benchmarks.evidence.study import rejudged
from benchmarks.stress import reliability

HERE = Path(__file__).parent
PAGES = tuple(HERE / f"{name}.md" for name in ("performance", "evidence", "proposals", "labels", "labelers", "reliability"))
RESULTS = HERE.parent / "benchmarks" / "results"
MARKERS = re.compile(r"(<!-- bench-([\w-]+):begin -->\n).*?(<!-- bench-\2:end -->)", re.DOTALL)
NOTHING = "Not recorded yet."
TABLES = {cost.NAME: cost.table, reliability.NAME: reliability.table}


def filled(page: str, results: Path) -> str:
    """`page` with a table between the markers of each benchmark; that of `cost` is made of all studies, that of
    `reliability` of all stresses."""

    def content(name: str) -> str:
        if name in TABLES:
            return TABLES[name](results)
        file = results / f"{name}.json"
        return CATALOG[name].table(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else NOTHING

    return MARKERS.sub(lambda found: f"{found[1]}{content(found[2]).strip()}\n{found[3]}", page)


def wrong(texts: Sequence[str], results: Path) -> Iterator[str]:
    """What is no record: a file that is not whole, a miniature, an unfinished study, rows that do not follow from what was
    measured, a result that no page shows."""
    shown = {found[2] for text in texts for found in MARKERS.finditer(text)}
    for file in sorted(results.glob("*.json")):
        try:
            answer = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            yield f"{file.name} is no JSON: {error}"
            continue
        marker = reliability.NAME if file.stem.startswith(reliability.PREFIX) else file.stem
        if marker not in shown:
            yield f"{file.name} is shown on no page: the markers bench-{marker}:begin and :end are missing"
        if answer["name"] in STUDIES:
            if not answer["complete"] or answer["size"] == "quick":
                yield f"{file.name} is of an unfinished run or of a miniature"
            elif rejudged(answer) != answer["rows"]:
                yield f"{file.name} has rows that do not follow from its cells: run the same command again"


def main(arguments: list[str], *, pages: Sequence[Path] = PAGES, results: Path = RESULTS) -> int:
    match arguments:
        case ["fill"]:
            for page in pages:
                write_atomically(page, filled(page.read_text(encoding="utf-8"), results).encode())
                print(f"filled {page.name}")
        case ["check"]:
            texts = {page.name: page.read_text(encoding="utf-8") for page in pages}
            found = list(wrong(list(texts.values()), results))
            if found:
                print("\n".join(found), file=sys.stderr)
                return 1
            other = [name for name, text in texts.items() if text != filled(text, results)]
            if other:
                print(
                    f"{', '.join(other)}: other tables than {results.name}/; run `python docs/tables.py fill`",
                    file=sys.stderr,
                )
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
