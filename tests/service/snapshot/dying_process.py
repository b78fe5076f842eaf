"""A snapshot taken or restored by a process that is killed at its Nth step: ARGV is the work, the
data directory, the database, the snapshot and N.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from service.settings import load_settings
from service.snapshot.restoring import restore
from service.snapshot.taking import take

work, data, url, place, left = sys.argv[1:]
steps = iter(range(int(left), -1, -1))


def step(_: str) -> None:
    if next(steps) == 0:
        os.kill(os.getpid(), signal.SIGKILL)


settings = load_settings({"data_dir": data, "database_url": url})
if work == "take":
    take(settings, Path(place), images=True, step=step)
else:
    restore(settings, Path(place), step=step)
