"""What does it cost to take new labels into a running posterior, against drawing a fresh one? Ethanol, 20 labels and 20 more.

    ALLOOP_DATA=folder python -m benchmarks.update --folder multifidelity

The fresh posterior has all steps of the schedule, from a draw of N(0, I). Updates start from the samples on the first 20
labels, with a part of the steps, and with the new labels drawn like the others or more often. All is kept in `--folder`, where
`multifidelity` keeps its own.
"""

import argparse
import json
from pathlib import Path

from alloop.posterior.run import PosteriorStart, SamplingJob
from benchmarks.ethanol import MODEL, POSTERIOR, chosen, errors, frames_of, sampled, seed_of

BEFORE, AFTER, SPLIT = 20, 40, 1
PARTS = (0.2, 0.5)
SHARES = (0.0, 0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("multifidelity"), help="what is done is kept here")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    train, test = frames_of("train"), frames_of("test")
    first, all_labels = chosen(train, BEFORE, SPLIT), chosen(train, AFTER, SPLIT)
    whole = SamplingJob(MODEL, POSTERIOR, seed_of(SPLIT), 1)
    before, fresh = (sampled(folder, f"split{SPLIT}-{len(each.items)}-normal", each, whole) for each in (first, all_labels))
    print(json.dumps({"posterior": "fresh"} | errors(fresh, test)), flush=True)
    start = PosteriorStart(before.samples, before.model, frozenset(item.label_id for item in first.items))
    for part in PARTS:
        for share in SHARES:
            steps = {name: round(part * getattr(POSTERIOR, name)) for name in ("warmup_steps", "mass_steps", "sampling_steps")}
            posterior = POSTERIOR.model_copy(update=steps | {"new_label_share": share})
            job = SamplingJob(MODEL, posterior, seed_of(SPLIT), 2, start)
            drawn = sampled(folder, f"update-{part:g}-share{share:g}", all_labels, job)
            print(json.dumps({"posterior": "update", "steps": part, "share": share} | errors(drawn, test)), flush=True)


if __name__ == "__main__":
    main()
