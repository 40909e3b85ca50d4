"""The stresses by name, in the order of the list of faults."""

from benchmarks.stress import claimers, cuts, damage, full_disk, kills, late, orphans, poison, rounds
from benchmarks.stress.fault import Stress

CATALOG: dict[str, Stress] = {
    "kills": kills.STRESS,
    "orphans": orphans.STRESS,
    "late": late.STRESS,
    "rounds": rounds.STRESS,
    "claimers": claimers.STRESS,
    "damage": damage.STRESS,
    "cuts": cuts.STRESS,
    "full-disk": full_disk.STRESS,
    "poison": poison.STRESS,
}
