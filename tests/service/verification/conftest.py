"""A service to compare: that of the application's tests."""

from __future__ import annotations

from tests.service.application.conftest import at, embedder, opened, run  # noqa: F401
