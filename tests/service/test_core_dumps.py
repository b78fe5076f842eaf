"""In privacy mode a crash leaves no core dump."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, resource
from service.core_dumps import forbid_core_dumps
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
forbid_core_dumps()
PR_GET_DUMPABLE = 3
dumpable = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
print(dumpable, resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_neither_file_nor_program_gets_a_dump() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=240
    )
    assert done.stdout.strip() == "0 (0, 0)"
