"""n-Alkanes from dynamics under GFN2-xTB, labeled at the same level: made once for each chain length and seed, then kept."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alloop.digests import digest_json
from alloop.errors import ConfigError
from alloop.files import write_atomically
from alloop.labels.label import Label, LabelRequest
from alloop.labels.level_of_theory import TbliteLevel
from alloop.rng import stream_seed
from alloop.structures.structure import Structure
from alloop.training.training_set import LabeledStructure, Purpose
from benchmarks.evidence.n_alkane import n_alkane
from benchmarks.evidence.study import Place
from benchmarks.frames import Frames
from labelers.dynamics import Dynamics
from labelers.isolate import LabelPool

LEVEL = TbliteLevel()
FRICTION_PER_FS = 0.02
EQUILIBRATION_FRAMES = 5


@dataclass(frozen=True)
class Trajectory:
    """`frames` of the chain of `carbons`, `spacing_fs` apart; as many as `EQUILIBRATION_FRAMES` before them are not kept.

    Velocities are drawn anew after each frame, from the same thermal distribution: what is sampled stays the same, and the time
    is over at most one frame late.
    """

    carbons: int
    frames: int
    seed: int
    spacing_fs: float = 50.0
    timestep_fs: float = 1.0
    temperature_kelvin: float = 500.0

    def segment(self, start: Structure, number: int) -> Dynamics:
        """From one frame to the next, in a random stream of its own."""
        return Dynamics(
            structure=start,
            level=LEVEL,
            temperature_kelvin=self.temperature_kelvin,
            timestep_fs=self.timestep_fs,
            friction_per_fs=FRICTION_PER_FS,
            frames=1,
            spacing_fs=self.spacing_fs,
            equilibration_fs=0.0,
            seed=stream_seed(self.seed, "alkane", self.carbons, number),
        )

    def file(self, place: Place) -> Path:
        facts = asdict(self) | {"level": LEVEL.level_id, "friction": FRICTION_PER_FS, "equilibration": EQUILIBRATION_FRAMES}
        return place.folder / "alkanes" / f"c{self.carbons}-{digest_json(facts)}.npz"


def labeled_frames(
    place: Place, trajectories: Iterable[Trajectory], purpose: Purpose = Purpose.TRAIN
) -> dict[int, tuple[LabeledStructure, ...]]:
    """By number of carbons, from the folder of the study where they were made before. Ids of labels tell frames apart.

    Raises `OutOfTime`, and `ConfigError` where dynamics or labels cannot be computed.
    """
    wanted = list(trajectories)
    missing = [each for each in wanted if not each.file(place).is_file()]
    if missing:
        with LabelPool[int](1) as pool:
            for each in missing:
                made = _made(each, place, pool)
                if not each.file(place).is_file():  # a cell beside this one may have been faster
                    write_atomically(each.file(place), made)
                each.file(place).with_suffix(".part").unlink(missing_ok=True)
    return {each.carbons: _read(each.file(place), purpose) for each in wanted}


def _made(trajectory: Trajectory, place: Place, pool: LabelPool[int]) -> bytes:
    """The frames as the content of a file. Positions go to a file beside it as they come, so that the next call goes on."""
    start, partial = n_alkane(trajectory.carbons), trajectory.file(place).with_suffix(".part")
    frames = [start.with_positions(each) for each in np.load(partial, allow_pickle=False)] if partial.is_file() else []
    for number in range(len(frames), EQUILIBRATION_FRAMES + trajectory.frames):
        place.on_time()
        (found,) = pool.map([trajectory.segment(frames[-1] if frames else start, number)])
        if not isinstance(found, list):
            raise _not_computed("dynamics of n-alkanes", found)
        frames += found
        _write(partial, np.stack([each.positions for each in frames]))
    kept = frames[EQUILIBRATION_FRAMES:]
    labels = [_label(found) for found in pool.map([LabelRequest(each, LEVEL) for each in kept])]
    buffer = BytesIO()
    np.savez_compressed(
        buffer,
        allow_pickle=False,
        numbers=start.numbers,
        positions=np.stack([each.positions for each in kept]),
        energies=np.array([each.energy for each in labels]),
        forces=np.stack([each.forces for each in labels]),
    )
    return buffer.getvalue()


def _write(file: Path, array: NDArray[np.float64]) -> None:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomically(file, buffer.getvalue())


def _label(found: object) -> Label:
    if not isinstance(found, Label):
        raise _not_computed("labels of n-alkanes", found)
    return found


def _not_computed(wanted: str, found: object) -> ConfigError:
    said = getattr(found, "message", "something else")
    return ConfigError(f"{wanted} that {LEVEL} can compute", said, "see that tblite runs here: `alloop doctor`")


def _read(file: Path, purpose: Purpose) -> tuple[LabeledStructure, ...]:
    with np.load(file, allow_pickle=False) as held:
        structures = [Structure.molecule(held["numbers"], positions) for positions in held["positions"]]
        frames = Frames(structures, held["energies"], held["forces"])
    return frames.labeled(range(len(structures)), "alkane", purpose)
