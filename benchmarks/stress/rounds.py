"""F6: several schedulers start one round of one campaign; one gets it, and the others are told who has it.

    python -m benchmarks.stress.rounds URL RACES SEED FOLDER

In each race 2 to 8 processes want the next round at the same moment; the winner of the race before is dead by then. Prints
JSON.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

from alloop.errors import CampaignBusyError
from alloop.registry.holders import this_process
from alloop.registry.registry import Registry
from benchmarks.stress.fault import Counts, Figure, Place, Stress
from benchmarks.stress.processes import POLL_SECONDS, Gate, ended, fork, new_log, program
from benchmarks.stress.queues import CAMPAIGN, CONFIG, WATER

FEWEST, MOST = 2, 8
PATIENCE_SECONDS = 120.0


def measure(place: Place) -> Counts:
    """`place.count` races, each seen through its lines: who won, and what the others were told."""
    result = program("rounds", place.url, place.count, place.seed, place.folder)
    with Registry.open(place.url) as registry:
        begun = [record.round for record in registry.rounds(CAMPAIGN)]
    races = result["races"]
    winners = [[line.split()[1] for line in race["log"] if line.startswith("mine")] for race in races]
    told = [[line.split()[1] for line in race["log"] if line.startswith("busy")] for race in races]
    return {
        "done": len(races),
        "processes": sum(len(race["exits"]) for race in races),
        "not_one": sum(len(winner) != 1 for winner in winners),
        "misled": sum(name not in winner for winner, names in zip(winners, told, strict=True) for name in names),
        "silent": sum(len(race["exits"]) - len(race["log"]) for race in races),
        "errors": sum(code != 0 for race in races for code in race["exits"]) + bool(result["said"]),
        "rounds_off": int(begun != list(range(1, place.count + 1))),
    }


STRESS = Stress(
    fault="F6",
    title="races of 2 to 8 schedulers for one round",
    unit="races",
    count=1_000,
    block=50,
    figures=(
        Figure("not_one", "races with no winner or several"),
        Figure("misled", "losers that were not told who won"),
        Figure("silent", "schedulers that said nothing"),
        Figure("errors", "schedulers that met an error"),
        Figure("rounds_off", "rounds that are missing or there twice"),
        Figure("processes", "schedulers", None),
    ),
    measure=measure,
    core_minutes=22.0,
)


def race(url: str, number: int, processes: int, folder: Path) -> dict[str, object]:
    """One race; exit codes, and a line of each process: "mine PID", or "busy PID" with the process that was named to it."""
    folder.mkdir()
    log, path = new_log(folder)
    start, end = Gate(), Gate()

    def want() -> None:
        start.join()
        end.join()
        with Registry.open(url) as registry:
            start.wait()
            registry.begin_round(CAMPAIGN, number)
            try:
                registry.hold_campaign(CAMPAIGN, this_process(), 600)
            except CampaignBusyError as error:
                os.write(log, f"busy {error.came.split()[1]}\n".encode())
            else:
                os.write(log, f"mine {os.getpid()}\n".encode())
                end.wait()  # alive while the others ask

    children = [fork(want) for _ in range(processes)]
    start.open()
    patience = time.monotonic() + PATIENCE_SECONDS
    while path.read_text().count("\n") < processes and time.monotonic() < patience:
        time.sleep(POLL_SECONDS)
    end.open()
    exits = [ended(child) for child in children]
    for each in (start, end):
        each.close()
    os.close(log)
    return {"exits": exits, "log": path.read_text().splitlines()}


def main(url: str, races: str, seed: str, folder: str) -> None:
    with Registry.open(url, create=True) as registry:
        registry.create_campaign(CONFIG, [WATER])
    chance = random.Random(int(seed))
    numbers = range(1, int(races) + 1)
    done = [race(url, number, chance.randint(FEWEST, MOST), Path(folder) / f"race-{number}") for number in numbers]
    print(json.dumps({"races": done}))


if __name__ == "__main__":
    main(*sys.argv[1:])
