"""Where a running service is, told without ending it."""

from __future__ import annotations

import signal
import time
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any


def test_a_signal_prints_the_stacks_of_every_thread_and_nothing_ends(
    start_service: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    with start_service(tmp_path / "data") as service:
        service.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 120
        # The dump is written line by line, the main thread last: wait for its first frame's line.
        while "service/commands/serve.py" not in (told := service.log.read_text()):
            assert time.monotonic() < deadline, told
            time.sleep(0.02)
        assert "(most recent call first)" in told
        assert told.count("Thread 0x") > 1
        with urllib.request.urlopen(f"http://{service.rest}/readyz", timeout=60) as answer:
            assert answer.status == 200
        assert service.stop() == 0
