"""P10 and P11: what the registry costs beside ASE's database: a million labels stored and read, and a label that takes no time.

Labels of displaced ethanol, with energies and forces. What is timed begins with structures and labels in memory and ends with
committed rows: digests, checks, indexes and history are part of it. Aims are of the clock. Beside it stands processor time, of
this process and, on PostgreSQL, of the server: where the two are far apart, the machine had other work. Databases are new, on
disk, and durable.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from sqlalchemy import make_url, text

from alloop.config import parse_config
from alloop.errors import MachineError
from alloop.labels.label import Label
from alloop.labels.level_of_theory import ScriptedLevel
from alloop.proposals.proposal import Proposal, Strategy
from alloop.registry.registry import Registry
from alloop.rng import numpy_stream
from alloop.structures.structure import Structure
from alloop.training.training_set import Purpose
from benchmarks.harness import Aim, Options, Row, answer, compare, counted, judged, not_measured
from benchmarks.postgresql import postgresql_server
from flows.labeling import label_waiting
from flows.progress import Step
from flows.settings import Settings

TITLE = "labels stored and read by the million, beside ASE's database; a label that takes no time (P10, P11)"
SEED = 1
LEVEL = ScriptedLevel()
FACTS = {"program": "scripted", "version": "1"}
LABELS, BATCH, BESIDE, PAIRS, NO_OPS = 1_000_000, 100_000, 10_000, 5, 2_000
SMALL_LABELS, SMALL_BATCH, SMALL_BESIDE, SMALL_PAIRS, SMALL_NO_OPS = 600, 300, 100, 2, 40
LEAST_A_SECOND, MOST_READ_SECONDS, MOST_BYTES, MOST_OVERHEAD_MS = 30_000, 6.0, 1500.0, 0.5
Labeled = list[tuple[Structure, Label]]


@dataclass
class Watch:
    """Seconds spent, by the clock and of processors."""

    wall: float = 0.0
    core: float = 0.0

    def run(self, call: Callable[[], Any], server: Callable[[], float]) -> Any:
        wall, core = time.perf_counter(), time.process_time() + server()
        found = call()
        self.wall += time.perf_counter() - wall
        self.core += time.process_time() + server() - core
        return found


def run(options: Options) -> dict[str, Any]:
    """Rows of storing, of reading, of size, beside ASE, and of the queue, on both databases."""
    labels, batch, beside, pairs, no_ops = (
        (SMALL_LABELS, SMALL_BATCH, SMALL_BESIDE, SMALL_PAIRS, SMALL_NO_OPS)
        if options.quick
        else (LABELS, BATCH, BESIDE, PAIRS, NO_OPS)
    )
    rows: list[Row] = []
    with TemporaryDirectory() as folder, ExitStack() as stack:
        rows += beside_ase(Path(folder), beside, pairs)
        places = {"SQLite": str(Path(folder) / "million.db")}
        try:
            places["PostgreSQL"] = stack.enter_context(postgresql_server(durable=True))
        except MachineError as error:
            rows.append(not_measured("PostgreSQL", f">= {LEAST_A_SECOND:,} labels/s", f"{error.wanted}: {error.came}"))
        for name, url in places.items():
            rows += million(name, url, labels, batch)
            rows += no_op(name, url, no_ops, Path(folder))
    return answer("registry", SEED, rows, options)


def drawn(count: int, batch: int) -> Iterator[Labeled]:
    """Labels of displaced ethanol, `batch` at a time."""
    rest = molecule("CH3CH2OH")
    generator = numpy_stream(SEED, "registry-labels")
    for start in range(0, count, batch):
        shape = (min(batch, count - start), len(rest), 3)
        positions = rest.positions + generator.normal(scale=0.05, size=shape)
        forces, energies = generator.normal(size=shape), generator.normal(size=shape[0])
        yield [
            (Structure.molecule(rest.numbers, moved), Label(float(energy), force, None, 0.1, FACTS))
            for moved, force, energy in zip(positions, forces, energies, strict=True)
        ]


def million(name: str, url: str, count: int, batch: int) -> list[Row]:
    """Store `count` labels, read all of them into tensors, and see how much room they take."""
    storing, reading = Watch(), Watch()
    with Registry.open(url, create=True) as registry:
        server = server_seconds(url)
        for items in drawn(count, batch):
            if storing.run(lambda items=items: registry.add_labels(LEVEL, items), server) != len(items):
                raise RuntimeError("labels that should be new were not")
        tensors = reading.run(lambda: read(registry), server)
        if tensors[0].shape[0] != count or not all(bool(torch.isfinite(each).all()) for each in tensors):
            raise RuntimeError("what was read is not what was stored")
        size = stored_bytes(registry) / count
    rate, aim = count / storing.wall, f">= {LEAST_A_SECOND:,} /s"
    most = f"<= {MOST_READ_SECONDS:g} s at {LABELS:,}"
    room = f"<= {MOST_BYTES:g} bytes"
    return [
        judged(f"{name}: of {count:,} labels stored a second", rate, None, "/s", aim, rate >= LEAST_A_SECOND),
        counted(f"{name}: the same, a core-second", count / storing.core, None, "/s"),
        judged(f"{name}: all read into tensors", reading.wall, None, "s", most, reading.wall <= MOST_READ_SECONDS),
        counted(f"{name}: the same, core-seconds", reading.core, None, "s"),
        judged(f"{name}: room a label takes", size, None, "bytes", room, size <= MOST_BYTES),
    ]


def read(registry: Registry) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Energies [labels], positions and forces [atoms, 3]."""
    arrays = registry.label_arrays(LEVEL)
    return torch.from_numpy(arrays.energies), torch.from_numpy(arrays.positions), torch.from_numpy(arrays.forces)


def stored_bytes(registry: Registry) -> int:
    """Of the whole database, with its indexes."""
    with registry._engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return os.path.getsize(str(registry._engine.url.database))


def server_seconds(url: str) -> Callable[[], float]:
    """Processor seconds of a PostgreSQL that was started here, and of all its processes; of SQLite there are none."""
    if not url.startswith("postgresql"):
        return lambda: 0.0
    folder = Path(str(make_url(url).query["host"]))
    main = (folder / "data" / "postmaster.pid").read_text().split()[0]

    def spent() -> float:
        ticks = 0
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for process in [main, *children]:
            with suppress(FileNotFoundError):
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    return spent


def beside_ase(folder: Path, count: int, pairs: int) -> list[Row]:
    """New files in turns; ASE writes all rows in one transaction, which is its fastest way."""
    items = next(drawn(count, count))
    atoms = []
    for structure, label in items:
        each = Atoms(structure.numbers, structure.positions)
        each.calc = SinglePointCalculator(each, energy=label.energy, forces=label.forces)
        atoms.append(each)

    def ase(path: Path) -> None:
        database: Any = connect(path, type="db")
        with database:
            for each in atoms:
                database.write(each)

    def ours(path: Path) -> None:
        fresh = [(Structure.molecule(structure.numbers, structure.positions), label) for structure, label in items]
        with Registry.open(path, create=True) as registry:
            registry.add_labels(LEVEL, fresh)

    times: dict[str, list[float]] = {"ours": [], "ase": []}
    for turn in range(pairs):
        for name, write in (("ours", ours), ("ase", ase)):
            start = time.perf_counter()
            write(folder / f"{name}-{turn}.db")
            times[name].append(time.perf_counter() - start)
    reason = "ours makes the file and the structures, too"
    name = f"{count:,} labels into a new SQLite file / ASE's database, one transaction"
    return [compare(name, times["ours"], times["ase"], Aim(0.1, "<= 0.1 (10x faster)"), reason=reason)]


def no_op(name: str, url: str, count: int, folder: Path) -> list[Row]:
    """Claim, hand to a worker, compute a Morse well, commit: what a label takes beside the time in its labeler."""
    rest = Structure.molecule([8, 1, 1], [[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
    config = parse_config({"name": "no-op", "system": {"structure": "water.xyz"}, "labeler": "scripted"})
    moves = numpy_stream(SEED, "registry-no-op").normal(scale=0.05, size=(count, 3, 3))
    proposals = [Proposal(rest.with_positions(rest.positions + move), Strategy.INITIAL, Purpose.TRAIN) for move in moves]
    path = str(folder / "no-op.db") if name == "SQLite" else url
    settings = Settings(label_workers=1)
    with Registry.open(path, create=True) as registry:
        registry.create_campaign(config, [rest])
        registry.propose("no-op", 0, proposals[:1], config.labeler)
        label_waiting(registry, "no-op", settings, Step("no-op", 0, "label"))  # imports of the worker's
        registry.propose("no-op", 0, proposals, config.labeler)
        watch = Watch()
        server = server_seconds(path)
        tally = watch.run(lambda: label_waiting(registry, "no-op", settings, Step("no-op", 0, "label")), server)
        if tally.complete != count - 1:
            raise RuntimeError(f"{tally.complete} of {count - 1} labels")
        inside = sum(record.cost_core_seconds or 0.0 for record in registry.labels("no-op"))
    overhead = 1e3 * (watch.wall - inside) / tally.complete
    aim = f"<= {MOST_OVERHEAD_MS:g} ms"
    return [
        judged(f"{name}: a no-op label, less its time in the labeler", overhead, None, "ms", aim, overhead <= MOST_OVERHEAD_MS),
        counted(f"{name}: the same, core time outside the worker", 1e3 * watch.core / tally.complete, None, "ms"),
    ]
