"""Faults done to real processes, databases and files: nothing is lost, stored twice or wrong.

The proofs are those of `alloop stress NAME`, with small counts; docs/reliability.md has the large ones.
"""

from pathlib import Path

import pytest

from benchmarks.stress.catalog import CATALOG
from benchmarks.stress.fault import FILES, SQLITE, Counts, Place

SEED = 20_240_901
SMALL = {"kills": 50, "late": 12, "rounds": 6, "claimers": 240, "cuts": 32, "poison": 2}
SMALL_FILES = {"damage": 60, "full-disk": 4, "orphans": 3}
# What must have happened for a proof to be one.
MUST_HAPPEN = {
    "kills": ("in_label", "in_commit", "leases_lost"),
    "late": ("returns", "raced"),
    "rounds": ("processes",),
    "claimers": ("processes",),
    "cuts": ("before", "after"),
    "poison": ("deaths",),
    "damage": ("flipped", "cut"),
    "full-disk": ("nothing", "labels"),
    "orphans": ("at_work",),
}


def suffered(name: str, url: str, folder: Path, count: int) -> Counts:
    """Do a fault, and see that every figure which is judged is as it should be."""
    stress = CATALOG[name]
    counts = stress.measure(Place(url, folder, count, SEED))
    assert counts["done"] == count
    judged = [figure for figure in stress.figures if figure.most is not None]
    assert {each.title: counts[each.key] for each in judged if counts[each.key] > (each.most or 0.0)} == {}
    assert all(counts[key] > 0 for key in MUST_HAPPEN[name]), counts
    return counts


def test_every_stress_has_its_short_form() -> None:
    assert set(SMALL) | set(SMALL_FILES) == set(CATALOG) == set(MUST_HAPPEN)
    assert all(set(CATALOG[name].databases) <= {*FILES, SQLITE} for name in SMALL_FILES)


@pytest.mark.parametrize("name", SMALL)
def test_a_fault_breaks_nothing_in_the_registry(name: str, registry_url: str, tmp_path: Path) -> None:
    counts = suffered(name, registry_url, tmp_path, SMALL[name])
    if name == "claimers":
        assert counts["leases_lost"] == 0


@pytest.mark.parametrize("name", SMALL_FILES)
def test_a_fault_breaks_nothing_in_files(name: str, tmp_path: Path) -> None:
    suffered(name, "", tmp_path, SMALL_FILES[name])
