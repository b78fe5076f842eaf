"""Run in a fork of the server of ``forked.py``, which gives it ``told``: becomes a command."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

told: dict[str, Any] = globals()["told"]
for number, name in ((1, "stdout"), (2, "stderr")):
    given = told[name].detach()
    os.dup2(given, number)
    os.close(given)
sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
os.environ.clear()
os.environ.update(told["environment"])
tempfile.tempdir = None
sys.argv = ["resight", *told["arguments"]]

from resight.cli import main  # noqa: E402

main()
