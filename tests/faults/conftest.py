"""Real services that are killed, starved and lied to."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.e2e.conftest import (  # noqa: F401
    RESIGHT,
    catalog,
    catalog_of,
    jpeg,
    start_service,
    tiny_bundle,
)
from tests.faults.evidence import Site


@cache
def image_of(number: int) -> bytes:
    """The image sent as the crop of a number."""
    return jpeg(number, height=64, width=32)


@pytest.fixture
def site(tmp_path: Path, catalog: dict[str, str]) -> Site:  # noqa: F811
    """An empty site on either database; ``start_service(site.data, **catalog)`` serves it."""
    url = catalog.get("RESIGHT_DATABASE_URL", f"sqlite:///{tmp_path}/data/catalog.sqlite")
    assert make_url(url)
    return Site(tmp_path / "data", url, image_of)
