"""A gallery of each test's own, and nights of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.nights.stand_in import Night


@pytest.fixture
def gallery(request: pytest.FixtureRequest) -> str:
    """A gallery of the test's own."""
    return "n" + "".join(c for c in request.node.name.lower() if c.isalnum())[:50]


@pytest.fixture
def night(
    service: Any, gallery: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Night:
    return Night(service.grpc, gallery, tiny_bundle, tmp_path, monkeypatch)


@pytest.fixture
def images(make_jpeg: Callable[..., bytes]) -> list[bytes]:
    return [make_jpeg(number) for number in range(24)]
