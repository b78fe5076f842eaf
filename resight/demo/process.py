"""The real command line as child processes, which never outlive the demo."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from resight.errors import FailedPrecondition, ResightError

__all__ = ["Server", "run_command", "serving", "shown"]

_LAST_LINES = 12
_READY_SECONDS = 120.0
_STOP_SECONDS = 30.0
_READY = re.compile(r"ready grpc=(?P<grpc>\S+) rest=(?P<rest>\S+) model=(?P<model>\S+)")


@dataclass(frozen=True)
class Server:
    """A running ``resight serve``."""

    grpc: str
    rest: str
    model_version: str
    ready_seconds: float


def shown(arguments: Sequence[str]) -> str:
    """A command as a user types it here: by its path where the shell would not find it."""
    script = Path(sys.executable).with_name("resight")
    found = shutil.which("resight")
    known = not script.exists() or (found is not None and Path(found).samefile(script))
    return shlex.join(["resight" if known else _near(script), *arguments])


def _near(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def run_command(arguments: Sequence[str], *, log: Path) -> dict[str, Any]:
    """Run ``resight`` with ``--json`` and return what it prints.

    Args:
        arguments: Of the command, without ``--json``.
        log: Where its stderr goes.

    Raises:
        ResightError: It failed; the message ends with its last lines.
    """
    with log.open("wb") as errors:
        process = _start([*arguments, "--json"], errors)
        try:
            output, _ = process.communicate()
        except BaseException:
            _stop(process)
            raise
    if process.returncode:
        raise _failed(arguments, process.returncode, log)
    try:
        answer = json.loads(output)
    except ValueError as error:
        raise ResightError(f"{shown(arguments)} printed no JSON: {output[:200]!r}") from error
    if not isinstance(answer, dict):
        raise ResightError(f"{shown(arguments)} printed no JSON object: {output[:200]!r}")
    return answer


@contextmanager
def serving(arguments: Sequence[str], *, log: Path) -> Iterator[Server]:
    """Run ``resight serve`` for the block; whatever ends the block, it is stopped and waited for.

    Raises:
        ResightError: It ended, or said nothing, before it was ready.
        FailedPrecondition: It did not end well when told to stop.
    """
    started = time.perf_counter()
    with log.open("wb") as errors:
        process = _start(arguments, errors)
        try:
            ready = _await_ready(process, arguments, log)
            seconds = time.perf_counter() - started
            yield Server(ready["grpc"], ready["rest"], ready["model"], seconds)
        finally:
            status = _stop(process)
    if status:
        raise FailedPrecondition(
            f"{shown(arguments)} ended with status {status} when told to stop:\n{_tail(log)}"
        )


def _start(arguments: Sequence[str], errors: IO[bytes]) -> subprocess.Popen[str]:
    # The demo shows the defaults: settings of the caller's environment would change what is shown.
    environment = {name: value for name, value in os.environ.items() if name[:8] != "RESIGHT_"}
    # In a session of its own a child is stopped by us, in order, and not by the terminal's Ctrl-C.
    return subprocess.Popen(
        [sys.executable, "-c", "from resight.cli import main; main()", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
        start_new_session=True,
    )


def _await_ready(
    process: subprocess.Popen[str], arguments: Sequence[str], log: Path
) -> dict[str, str]:
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise ResightError(
                f"{shown(arguments)} was not ready after {_READY_SECONDS:.0f} s:\n{_tail(log)}"
            ) from None
        if line is None:
            raise _failed(arguments, process.wait(), log)
        match = _READY.match(line)
        if match:
            return match.groupdict()


def _read_lines(stream: IO[str] | None, lines: queue.Queue[str | None]) -> None:
    # Reads to the end even after the ready line: a full pipe would block the server.
    with suppress(ValueError):
        for line in stream or ():
            lines.put(line)
    lines.put(None)


def _stop(process: subprocess.Popen[str]) -> int:
    """End a child and those it started: SIGTERM, wait, then SIGKILL; returns its status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    # Workers of a child that was cut short share its session, hence its group.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.returncode


def _failed(arguments: Sequence[str], status: int, log: Path) -> ResightError:
    return ResightError(
        f"{shown(arguments)} ended with status {status}; its last lines ({log}):\n{_tail(log)}"
    )


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
