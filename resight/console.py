"""What commands write: one answer on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = ["ProgressBar", "emit", "note", "progress", "silence"]

_silent = False


class ProgressBar(Protocol):
    """Counts the work done."""

    def advance(self, n: int = 1) -> None:
        """Adds ``n`` units of work done."""


def emit(payload: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Writes a command's answer to stdout: one JSON object, or the text for people.

    Args:
        payload: JSON values; paths and times are written as text.
        as_json: Whether ``--json`` was given.
        text: What people read instead.
    """
    line = json.dumps(payload, default=str, ensure_ascii=False) if as_json else text
    sys.stdout.write(line.rstrip("\n") + "\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """Writes one line to stderr: a step, a warning, an error."""
    if _silent:
        return
    sys.stderr.write(message + "\n")
    sys.stderr.flush()


def silence(*, silent: bool) -> None:
    """Whether ``note`` and ``progress`` show nothing: of several processes on a job, one speaks."""
    global _silent
    _silent = silent


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[ProgressBar]:
    """A progress bar on stderr; without a terminal, one line when the work ends well.

    Args:
        description: What is being done.
        total: Units of work, when known.
    """
    if _silent:
        yield _Counter()
        return
    if not sys.stderr.isatty():
        counter = _Counter()
        start = time.monotonic()
        yield counter
        note(f"{description}: {counter.done} in {time.monotonic() - start:.1f} s")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task(description, total=total))


class _Counter:
    def __init__(self) -> None:
        self.done = 0

    def advance(self, n: int = 1) -> None:
        self.done += n


class _Bar:
    def __init__(self, bar: Progress, task: Any) -> None:
        self._bar = bar
        self._task = task

    def advance(self, n: int = 1) -> None:
        self._bar.advance(self._task, n)
