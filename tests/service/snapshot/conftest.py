"""Small services with something of everything in them, on two kinds of database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from service.application.application import Application
from service.application.ingest import IngestItem
from service.catalog import schema
from service.catalog.engine import open_engine
from service.catalog.models import metadata
from service.domain.crop import Camera
from service.domain.query import SearchQuery
from service.settings import ServiceSettings, load_settings
from tests.service.application.conftest import (  # noqa: F401
    NOON,
    HashEmbedder,
    make_bundle,
    succeed,
)


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """``place(name, kind)``: settings of a service on an empty database of that kind."""
    with ExitStack() as stack:

        def made(name: str, kind: str = "sqlite", **more: Any) -> ServiceSettings:
            places: dict[str, Any] = {"data_dir": tmp_path / name, **more}
            if kind == "postgresql":
                server = request.getfixturevalue("postgresql_server")
                places["database_url"] = stack.enter_context(server.database())
            return load_settings(places)

        yield made


@asynccontextmanager
async def serving(settings: ServiceSettings) -> AsyncIterator[Application]:
    """An application, on a schema of its own."""
    url = settings.resolved_database_url()
    if url.startswith("postgresql"):
        engine = open_engine(url, pool_size=1, writer=True)
        schema.upgrade(engine)
        engine.dispose()
    application = await Application.open(settings, embedder=HashEmbedder())
    try:
        yield application
    finally:
        await application.close()


def at(seconds: float) -> Any:
    return NOON + timedelta(seconds=seconds)


async def put(application: Application, number: int, gallery: str = "") -> Any:
    item = IngestItem(
        gallery,
        f"c{1 + number % 2}",
        at(number),
        b"image %d" % number,
        track_id=f"t{number % 3}" if number % 4 else "",
        zone="hall" if number % 5 else "",
        attributes={"coat": "rød", "n": str(number % 3)} if number % 2 else {},
    )
    result = await application.ingest.submit(item)
    assert result.outcome.name == "ACCEPTED", result
    return result.crop_id


async def answers(application: Application) -> dict[str, list[tuple[str, float]]]:
    """What every gallery says to some queries."""
    found: dict[str, list[tuple[str, float]]] = {}
    for gallery in application._galleries.all():
        for image in (b"query 1", b"query 2", b"image 3"):
            query = SearchQuery(gallery=gallery.name, image=image, top_k=100)
            answer = await application.search.search(query)
            found[f"{gallery.name} {image!r}"] = [
                (repr(match.crop), match.score) for match in answer.matches
            ]
    return found


def rows(settings: ServiceSettings) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, as the models read them."""
    engine = open_engine(settings.resolved_database_url(), pool_size=1, writer=False)
    try:
        with engine.connect() as connection:
            return {
                table.name: [
                    tuple(row)
                    for row in connection.execute(
                        table.select().order_by(*table.primary_key.columns)
                    )
                ]
                for table in metadata.sorted_tables
            }
    finally:
        engine.dispose()


@pytest.fixture
def filled(make_bundle: Any, succeed: Any) -> Callable[[ServiceSettings], Any]:  # noqa: F811
    """Two galleries, a night with its candidate, and a deletion; the answers."""

    seeds = count()

    def fill(settings: ServiceSettings) -> dict[str, list[tuple[str, float]]]:
        async def work() -> dict[str, list[tuple[str, float]]]:
            async with serving(settings) as application:
                for gallery in ("", "site-2"):
                    for camera in ("c1", "c2"):
                        await application.cameras.create(gallery, Camera(camera, zone="gate"))
                ids = [await put(application, number) for number in range(20)]
                for number in range(5):
                    await put(application, 100 + number, "site-2")
                started = await application.adaptation.start("", "test")
                await succeed(application, started, next(seeds))
                # The newest row: its number must not be given again.
                await application.crops.delete("", str(ids[-1]))
                await application.crops.delete("", str(ids[7]))
                return await answers(application)

        return asyncio.run(work())

    return fill


@pytest.fixture(name="serving")
def _serving() -> Callable[[ServiceSettings], Any]:
    return serving


@pytest.fixture(name="put")
def _put() -> Callable[..., Any]:
    return put


@pytest.fixture(name="answers")
def _answers() -> Callable[[Application], Any]:
    return answers


@pytest.fixture(name="rows")
def _rows() -> Callable[[ServiceSettings], Any]:
    return rows
