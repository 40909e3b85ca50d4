"""How a stress runs: block by block on new databases, resumable; its answer sums up all blocks and says what it met.

A block is written to the folder as soon as it is done, under a name made of what it is. The same command goes on where it was.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from os import times
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alloop.digests import digest_json
from alloop.errors import MachineError
from alloop.files import write_atomically
from alloop.rng import stream_seed
from benchmarks.harness import Options, Row, answer, commit, counted, judged, machine, not_measured
from benchmarks.stress.databases import Server, fresh_url
from benchmarks.stress.fault import POSTGRESQL, Place, Stress

FOLDER = Path("stress")
SEED = 20_261_122
SECONDS_PER_MINUTE = 60.0
Block = dict[str, Any]


def run(name: str, stress: Stress, options: Options) -> dict[str, Any]:
    """Do the blocks that were not done yet, until the time is over; then answer with all that are done."""
    count = int(options.choices.get("count") or stress.count)
    blocks = list(planned(name, stress, count))
    files = [(options.folder or FOLDER) / name / f"{digest_json(block)}.json" for block in blocks]
    missing = _done_now(stress, [(b, f) for b, f in zip(blocks, files, strict=True) if not f.is_file()], options)
    done = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    rows = [row for database in stress.databases for row in _rows(stress, database, done, missing.get(database))]
    spent = sum(block["core_seconds"] for block in done) / SECONDS_PER_MINUTE
    rows.append(counted("core-minutes of alloop's processes", spent, None, "min"))
    dates = sorted(block["date"] for block in done)
    return answer(name, SEED, rows, options) | {
        "fault": stress.fault,
        "title": stress.title,
        "unit": stress.unit,
        "command": f"alloop stress {name}" + (f" --count {count}" if count != stress.count else ""),
        "date": dates[-1] if dates else "",
        "complete": len(done) == len(blocks) and count >= stress.count,
        "blocks": done,
    }


def planned(name: str, stress: Stress, count: int) -> Iterator[Block]:
    """Each block by what it is: databases, seeds and sizes."""
    for database in stress.databases:
        for index, start in enumerate(range(0, count, stress.block)):
            size = min(stress.block, count - start)
            yield {"name": name, "database": database, "seed": SEED, "block": index, "count": size}


def _done_now(stress: Stress, missing: list[tuple[Block, Path]], options: Options) -> dict[str, str]:
    """Do what is missing; returns why a database is left out, by its name."""
    refused: dict[str, str] = {}
    end = time.monotonic() + SECONDS_PER_MINUTE * options.max_minutes if options.max_minutes else float("inf")
    with ExitStack() as stack:
        server = Server(options.choices.get("registry_url"), stack)
        for number, (block, file) in enumerate(missing):
            if time.monotonic() > end:
                print(f"{block['name']}: out of time, {len(missing) - number} blocks are left", file=sys.stderr, flush=True)
                break
            if block["database"] in refused:
                continue
            try:
                found = _block(stress, block, server)
            except MachineError as error:
                if block["database"] != POSTGRESQL or server.was_reached:
                    raise
                refused[POSTGRESQL] = f"{error.wanted}: {error.came}"
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(found).encode())
            print(f"{block['name']}: {block['database']}, block {block['block'] + 1} done", file=sys.stderr, flush=True)
    return refused


def _block(stress: Stress, block: Block, server: Server) -> Block:
    """One block on a database of its own."""
    seed = stream_seed(SEED, f"{block['name']}-{block['database']}", block["block"]) % 2**31
    with TemporaryDirectory(prefix="alloop-stress-") as top, fresh_url(block["database"], Path(top), server) as url:
        folder = Path(top) / "folder"
        folder.mkdir()
        wall, before = time.monotonic(), times()
        counts = stress.measure(Place(url, folder, block["count"], seed))
        wall, after = time.monotonic() - wall, times()
    spent = sum(getattr(after, name) - getattr(before, name) for name in ("user", "system", "children_user", "children_system"))
    where = {"date": datetime.now(UTC).date().isoformat(), "machine": machine(), "commit": commit()}
    return {**block, "counts": dict(counts), "wall_seconds": wall, "core_seconds": spent, **where}


def _rows(stress: Stress, database: str, done: list[Block], refused: str | None) -> Iterator[Row]:
    """How many were done, then each figure; of a database without blocks only that."""
    of_database = [block["counts"] for block in done if block["database"] == database]
    aim = f">= {stress.count:,}"
    if not of_database:
        yield not_measured(f"{database}: {stress.unit}", aim, refused or "no block is done yet: the same command goes on")
        return
    number = sum(counts["done"] for counts in of_database)
    yield judged(f"{database}: {stress.unit}", number, None, "", aim, number >= stress.count)
    for figure in stress.figures:
        value = figure.over(of_database)
        name = f"{database}: {figure.title}"
        if figure.most is None:
            yield counted(name, value, None, figure.unit)
        else:
            yield judged(name, value, None, figure.unit, str(figure.aim), value <= figure.most)
