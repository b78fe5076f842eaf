"""A service to compare: that of the application's tests."""

from __future__ import annotations

from tests.service.application.conftest import at, clock, embedder, opened, run  # noqa: F401
