"""An encoder thread that a test steps by hand, and a clock it sets."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest


class SteppedExecutor(Executor):
    """Keeps jobs until ``step`` runs the oldest one in the calling thread."""

    def __init__(self) -> None:
        self.jobs: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.jobs.append((future, fn, args))
        return future

    def step(self) -> bool:
        if not self.jobs:
            return False
        future, fn, args = self.jobs.popleft()
        if not future.set_running_or_notify_cancel():
            return True
        try:
            future.set_result(fn(*args))
        except BaseException as error:
            future.set_exception(error)
        return True


class SetClock:
    """A clock that moves only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def make_executor() -> type[SteppedExecutor]:
    return SteppedExecutor


@pytest.fixture(scope="session")
def make_clock() -> type[SetClock]:
    return SetClock
