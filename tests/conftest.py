"""Fixtures for the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real crops and weights for measuring; tests that need it skip without it."""
    path = Path(os.environ.get("RESIGHT_SHARED", ROOT.parent / "shared"))
    if not (path / "weights").is_dir():
        pytest.skip(f"no measuring material at {path} (set RESIGHT_SHARED)")
    return path
