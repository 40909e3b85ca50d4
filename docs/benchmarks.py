"""Tables of docs/performance.md: recorded from `alloop bench NAME --json`, then filled in. No number is typed by hand.

    alloop bench step --compile --json > docs/benchmarks/step.json
    python docs/benchmarks.py fill
    python docs/benchmarks.py check

`fill` writes a table between the markers of each benchmark. `check` says whether they are there as the files have them. Exit
codes: 0 when all is well, 1 otherwise.
"""

import json
import re
import sys
from pathlib import Path

from alloop.files import write_atomically
from flows.cli_bench import table

HERE = Path(__file__).parent
MARKERS = re.compile(r"(<!-- bench-(\w+):begin -->\n).*?(<!-- bench-\2:end -->)", re.DOTALL)
NOTHING = "Not recorded yet."


def filled(page: str, results: Path) -> str:
    """`page` with a table between the markers of each benchmark."""

    def content(name: str) -> str:
        file = results / f"{name}.json"
        return table(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else NOTHING

    return MARKERS.sub(lambda found: f"{found[1]}{content(found[2]).strip()}\n{found[3]}", page)


def main(arguments: list[str], *, page: Path = HERE / "performance.md", results: Path = HERE / "benchmarks") -> int:
    text = page.read_text(encoding="utf-8")
    match arguments:
        case ["fill"]:
            write_atomically(page, filled(text, results).encode())
            print(f"filled {page.name}")
        case ["check"]:
            if text != filled(text, results):
                print(
                    f"{page.name} has other tables than {results.name}/: run `python docs/benchmarks.py fill`", file=sys.stderr
                )
                return 1
        case _:
            print(__doc__, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
