"""Ports for processes that cannot be told to take a free one.

A port that the kernel gave a test and got back may go to any connection before the test's process
listens on it. So these lie below those that the kernel gives by itself, and each worker of
pytest-xdist begins at another place.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator

__all__ = ["free_port"]

FIRST, LAST = 12_000, 28_000
WORKERS = 16


def _candidates() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    each = (LAST - FIRST) // WORKERS
    # Two runs of the tests on one machine begin apart, too.
    place = random.Random(os.getpid()).randrange(each)
    while True:
        yield FIRST + worker * each + place
        place = (place + 1) % each


_PORTS = _candidates()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, another one each time."""
    while True:
        port = next(_PORTS)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
