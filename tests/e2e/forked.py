"""``resight`` commands in processes that need not import it again.

Half of what these tests would compute is the import of the same modules, some 1.5 s for every
process. A fork server of the standard library has them, holds no thread of ours and no connection,
and each command runs in a fork of it: with its own arguments, environment, output, signals and exit
code. What a program is before it is Python's is seen where commands are executed: the start, the
pages of docs/, the deployments, the demo, the nights, what dies by kill -9 while it starts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from runpy import run_path
from threading import Lock
from typing import IO, Any

__all__ = ["ForkedProcess", "completed", "fit", "started"]

PROGRAM = Path(__file__).with_name("forked_command.py")
MODULES = ["resight.cli", "service.commands.serve", "service.runtime"]
# Read where a process begins or a library is loaded.
EARLY = ("LD_", "MALLOC_", "OMP_", "PYTHON")
# An exit code is read once, from a pipe, by whoever looks first; a start looks at them all.
_LOOKING = Lock()


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(MODULES)
    return context


def fit(environment: Mapping[str, str]) -> bool:
    """Whether a fork can be as if it had been executed in this environment."""
    changed = environment.items() ^ os.environ.items()
    return not any(name.startswith(EARLY) for name, _ in changed)


class _Inherited:
    """A file descriptor that is handed over with the process; there it is ``detach()``-ed."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        # While it is sent: before, the library would keep a copy and a thread for it.
        return copy, (DupFd(self._number),)


class ForkedProcess:
    """What ``subprocess.Popen`` is of an executed process, as far as tests need it."""

    def __init__(self, process: ForkServerProcess, stdout: IO[str] | None = None) -> None:
        self._process = process
        self.stdout = stdout

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        with _LOOKING:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(PROGRAM), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def started(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stderr: int,
    stdout: int | None = None,
) -> ForkedProcess:
    """``resight ARGUMENTS``, not waited for; its stdout is a file or, without one, a pipe."""
    reading = None
    if stdout is None:
        reader, stdout = os.pipe()
        reading = os.fdopen(reader)
    told = {
        "arguments": list(arguments),
        "environment": dict(environment),
        "stdout": _Inherited(stdout),
        "stderr": _Inherited(stderr),
    }
    process = _server().Process(target=run_path, args=(str(PROGRAM), {"told": told}))
    with _LOOKING:
        process.start()
    if reading is not None:
        os.close(stdout)
    return ForkedProcess(process, reading)


def completed(
    arguments: Sequence[str], environment: Mapping[str, str], *, timeout: float
) -> subprocess.CompletedProcess[str]:
    """``resight ARGUMENTS`` to its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = started(arguments, environment, stdout=out.fileno(), stderr=err.fileno())
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())
