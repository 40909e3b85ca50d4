"""Calculators that do what no calculator should, for labels of `AseLevel(factory="benchmarks.stress.hazards:Bomb")`."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

SLEEP_SECONDS = "27182.8"  # by which its processes are known


class _Hazard(Calculator):
    implemented_properties = ["energy", "forces"]  # noqa: RUF012  (as ASE declares it)

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        self.results = {"energy": self.act(), "forces": np.zeros((len(atoms), 3))}

    def act(self) -> float:
        raise NotImplementedError


class Bomb(_Hazard):
    """Asks for far too much memory at once."""

    def act(self) -> float:
        return float(np.ones(20_000_000_000)[0])


class Leak(_Hazard):
    """Asks for more and more memory."""

    def act(self) -> float:
        kept = []
        while True:
            kept.append(np.ones(1_000_000))
            time.sleep(0.001)


class Talker(_Hazard):
    """Prints, and fails."""

    def act(self) -> float:
        os.write(1, b"the program said this\n")
        raise RuntimeError("and then it failed")


class Teller(_Hazard):
    """Prints all that it knows of its environment, and fails with it."""

    def act(self) -> float:
        print(dict(os.environ), flush=True)
        raise RuntimeError(f"{dict(os.environ)}")


class Litter(_Hazard):
    """Leaves a file in the folder for temporary files, and never ends."""

    def act(self) -> float:
        Path(tempfile.mkdtemp(prefix="litter-"), "file").write_text("left behind")
        time.sleep(float(SLEEP_SECONDS))
        return 0.0


class Probe(_Hazard):
    """Says what its process is like: threads, and 10 more where torch is imported, 1 more where glibc gives memory back."""

    def act(self) -> float:
        gives_back = os.environ["MALLOC_MMAP_MAX_"] != "0"
        return 10.0 * ("torch" in sys.modules) + float(os.environ["OMP_NUM_THREADS"]) + gives_back


class Parent(_Hazard):
    """Starts two processes, one of them in a session of its own, and never ends."""

    def act(self) -> float:
        subprocess.Popen(["sleep", SLEEP_SECONDS])
        subprocess.Popen(["sleep", SLEEP_SECONDS], start_new_session=True)
        time.sleep(float(SLEEP_SECONDS))
        return 0.0
