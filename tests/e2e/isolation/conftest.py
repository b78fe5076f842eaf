"""Two galleries behind one service, for tests that leave them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.isolation.two_galleries import Sites, two_galleries


@pytest.fixture(scope="session")
def sites(
    service: Any,
    make_jpeg: Callable[[int], bytes],
    make_bundle: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sites]:
    bundle = make_bundle(tmp_path_factory.mktemp("other") / "bundle")
    with two_galleries(service, make_jpeg, bundle) as made:
        yield made
