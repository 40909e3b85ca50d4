"""Rooms that labeling nodes and the registry use start without torch: checked by importing them, since static checks see our
imports only and not those of other packages."""

import subprocess
import sys

ROOMS = [
    "alloop.proposals.attack_check",
    "alloop.proposals.initial",
    "alloop.proposals.screen",
    "alloop.proposals.select",
    "alloop.structures.convert",
    "alloop.structures.fingerprint",
    "alloop.structures.plausible",
]


def test_importing_the_torch_free_rooms_imports_no_torch():
    code = f"import sys, {', '.join(ROOMS)}; sys.exit('torch' in sys.modules or 'e3nn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
