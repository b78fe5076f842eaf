"""Fixtures for the whole suite."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real crops and weights for measuring; tests that need it skip without it."""
    path = Path(os.environ.get("RESIGHT_SHARED", ROOT.parent / "shared"))
    if not (path / "weights").is_dir():
        pytest.skip(f"no measuring material at {path} (set RESIGHT_SHARED)")
    return path
