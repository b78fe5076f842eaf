"""Index files over restarts: used where they hold, and never a wrong answer where they do not."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from resight.errors import Unavailable
from service.application.index_keeper import IndexKeeper
from service.application.ingest import IngestItem
from service.catalog.engine import open_engine
from service.catalog.models import CHANGE_CROP_ADDED, changes, crops, embeddings, galleries
from service.domain.crop import Camera
from service.domain.query import SearchQuery
from service.telemetry import INDEX_FILLED, INDEX_WRITES

SMALL = {"index": {"segment_rows": 16, "changes_per_write": 10_000}}


def filled(source: str) -> float:
    return INDEX_FILLED.labels(source)._value.get()


async def ingest(application, at, numbers) -> dict[str, bytes]:
    stored = {}
    for number in numbers:
        image = b"crop %d" % number
        item = IngestItem("", f"c{number % 3 + 1}", at(number), image, track_id=f"t{number}")
        stored[str((await application.ingest.submit(item)).crop_id)] = image
    return stored


async def answers(application) -> list[tuple[str, str, float]]:
    found = await application.search.search(SearchQuery(image=b"query", top_k=1000))
    return [(str(m.crop.crop_id), m.crop.track_id, m.score) for m in found.matches]


async def assert_true(application, vectors, stored: dict[str, bytes]) -> None:
    """Every crop stored is found by its own image, with the vector of that image, and no other."""
    assert application.crop_count == len(stored)
    found = {crop_id: score for crop_id, _, score in await answers(application)}
    query = vectors(b"query").astype(float)
    assert set(found) == set(stored)
    for crop_id, image in stored.items():
        assert found[crop_id] == pytest.approx(float(vectors(image).astype(float) @ query))


def index_files(data: Path) -> list[Path]:
    return sorted(path for path in (data / "index").rglob("*") if path.is_file())


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def unkept(monkeypatch) -> None:
    """A process that ends without writing its index, as a killed one does."""

    async def nothing(_: IndexKeeper) -> None:
        return

    monkeypatch.setattr(IndexKeeper, "write_all", nothing)


def test_a_start_reads_its_files_and_answers_the_same(opened, run, at, vectors, data) -> None:
    async def work() -> None:
        async with opened(**SMALL) as application:
            stored = await ingest(application, at, range(50))
            for crop_id in list(stored)[:7]:
                await application.crops.delete("", crop_id)
                del stored[crop_id]
            before = await answers(application)
        count = filled("files")
        async with opened(cameras=False, **SMALL) as application:
            assert filled("files") == count + 1
            assert await answers(application) == before
            await assert_true(application, vectors, stored)
            stored |= await ingest(application, at, range(100, 120))
            await assert_true(application, vectors, stored)
        async with opened(cameras=False, **SMALL) as application:
            await assert_true(application, vectors, stored)

    run(work())


def test_changes_since_the_files_come_from_the_log(
    opened, run, at, vectors, data, monkeypatch
) -> None:
    """Added, deleted, and one id given again to another image, all after the files were written."""

    async def work() -> None:
        async with opened(**SMALL) as application:
            stored = await ingest(application, at, range(40))
        with monkeypatch.context() as patch:
            patch.setattr(IndexKeeper, "write_all", lambda _: asyncio.sleep(0))
            async with opened(cameras=False, **SMALL) as application:
                stored |= await ingest(application, at, range(100, 110))
                for crop_id in list(stored)[5:12]:
                    await application.crops.delete("", crop_id)
                    del stored[crop_id]
                again = next(iter(stored))
                await application.crops.delete("", again)
                item = IngestItem("", "c2", at(500), b"somebody else", crop_id=again)
                assert (await application.ingest.submit(item)).outcome.name == "ACCEPTED"
                stored[again] = b"somebody else"
        count = filled("files")
        async with opened(cameras=False, **SMALL) as application:
            assert filled("files") == count + 1
            await assert_true(application, vectors, stored)

    run(work())


def rewind(url: str, position: int) -> None:
    """Take a catalog back to an earlier position, as a restored backup would be."""
    engine = open_engine(url, pool_size=1, writer=True)
    later = changes.c.position > position
    gone = select(changes.c.crop_id).where(later, changes.c.kind == CHANGE_CROP_ADDED)
    rows = select(crops.c.crop_row).where(crops.c.crop_id.in_(gone))
    with engine.begin() as connection:
        connection.execute(delete(embeddings).where(embeddings.c.crop_row.in_(rows)))
        connection.execute(delete(crops).where(crops.c.crop_id.in_(gone)))
        connection.execute(delete(changes).where(later))
        connection.execute(update(galleries).values(position=position))
    engine.dispose()


@pytest.mark.parametrize("regrown", [False, True])
def test_files_of_a_later_catalog_are_not_believed(
    opened, run, at, vectors, data, catalog_url, monkeypatch, regrown
) -> None:
    """Restored from a backup; and then grown past the files' position with other crops."""

    async def work() -> None:
        async with opened(**SMALL) as application:
            stored = await ingest(application, at, range(20))
            await ingest(application, at, range(100, 110))
        kept = data.parent / "kept"
        shutil.copytree(data / "index", kept)
        rewind(catalog_url, 3 + 20)
        if regrown:
            async with opened(cameras=False, **SMALL) as application:
                stored |= await ingest(application, at, range(200, 230))
            shutil.rmtree(data / "index")
            shutil.copytree(kept, data / "index")
        count = filled("other_log")
        async with opened(cameras=False, **SMALL) as application:
            assert filled("other_log") == count + 1
            await assert_true(application, vectors, stored)
        # The start has written files that hold.
        count = filled("files")
        async with opened(cameras=False, **SMALL) as application:
            assert filled("files") == count + 1
            await assert_true(application, vectors, stored)

    run(work())


def test_a_damaged_file_costs_its_own_crops_a_read_of_the_catalog(
    opened, run, at, vectors, data, caplog
) -> None:
    async def work() -> None:
        async with opened(**SMALL) as application:
            stored = await ingest(application, at, range(50))
        victim = next(file for file in index_files(data) if file.suffix == ".segment")
        content = bytearray(victim.read_bytes())
        content[-10] ^= 1
        victim.write_bytes(content)
        count = filled("files_in_part")
        async with opened(cameras=False, **SMALL) as application:
            assert filled("files_in_part") == count + 1
            assert victim.name in caplog.text
            await assert_true(application, vectors, stored)

    run(work())


@pytest.mark.parametrize(
    ("change", "source"),
    [
        (lambda manifest: {**manifest, "position": manifest["position"] - 1}, "damaged"),
        (lambda manifest: {**manifest, "format": 2}, "newer_format"),
        (lambda _: [], "damaged"),
    ],
)
def test_a_manifest_that_cannot_be_used_means_the_catalog(
    opened, run, at, vectors, data, change, source
) -> None:
    async def work() -> None:
        async with opened(**SMALL) as application:
            stored = await ingest(application, at, range(5))
        (manifest,) = (file for file in index_files(data) if file.name == "manifest.json")
        manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
        count = filled(source)
        async with opened(cameras=False, **SMALL) as application:
            assert filled(source) == count + 1
            await assert_true(application, vectors, stored)

    run(work())


def test_files_are_written_after_so_many_changes(opened, run, at, data) -> None:
    async def work() -> None:
        settings = {"index": {"segment_rows": 16, "changes_per_write": 11}}
        async with opened(cameras=False, **settings) as application:
            # What there is at its start is written at once: let it look, at nothing.
            await asyncio.sleep(0.1)
            for name in ("c1", "c2", "c3"):
                await application.cameras.create("", Camera(name))
            await ingest(application, at, range(7))
            await asyncio.sleep(1.5)
            assert index_files(data) == []
            await ingest(application, at, range(7, 9))
            for _ in range(600):
                if any(file.name == "manifest.json" for file in index_files(data)):
                    break
                await asyncio.sleep(0.1)
            manifest = next(file for file in index_files(data) if file.name == "manifest.json")
            # Three cameras, and eight crops or, if it looked a little later, nine.
            assert json.loads(manifest.read_text())["position"] in (11, 12)

    run(work())


def test_a_forced_write_leaves_nothing_of_a_deleted_crop(
    opened, run, at, vectors, data, unkept
) -> None:
    async def work() -> None:
        async with opened(**SMALL) as application:
            stored = await ingest(application, at, range(40))
            gallery = application._galleries.get("")
            await application.index_files.write(gallery)
            gone = list(stored)[3]
            trace = vectors(stored[gone]).tobytes()
            assert any(trace in file.read_bytes() for file in index_files(data))
            stale = data / "index" / "default" / "retired"
            stale.mkdir()
            (stale / "old.segment").write_bytes(trace)
            await application.crops.delete("", gone)
            await application.index_files.write(gallery)
            assert not any(trace in file.read_bytes() for file in index_files(data))
            assert not stale.exists()

    run(work())


def test_an_index_that_is_behind_is_not_written(opened, run, at, data, monkeypatch, unkept) -> None:
    async def work() -> None:
        async with opened(**SMALL) as application:
            gallery = application._galleries.get("")
            behind = INDEX_WRITES.labels("behind")._value.get()
            with monkeypatch.context() as patch:
                patch.setattr(gallery.serving.index, "add", lambda _: 1 / 0)
                await ingest(application, at, [1])
                with pytest.raises(Unavailable, match="caught up"):
                    await application.index_files.write(gallery)
            assert INDEX_WRITES.labels("behind")._value.get() == behind + 1
            assert index_files(data) == []
            await ingest(application, at, [2])
            await application.index_files.write(gallery)
            assert json.loads(index_files(data)[-1].read_text())["position"] == 5

    run(work())


def test_a_disk_that_takes_nothing_costs_only_the_files(
    opened, run, at, vectors, data, caplog
) -> None:
    async def work() -> None:
        async with opened(**SMALL) as application:
            (data / "index").write_text("in the way")
            stored = await ingest(application, at, range(5))
            with pytest.raises(Unavailable, match="cannot be written") as caught:
                await application.index_files.write(application._galleries.get(""))
            assert caught.value.reason == "INDEX_FILES_UNWRITABLE"
        assert "cannot be written" in caplog.text
        (data / "index").unlink()
        async with opened(cameras=False, **SMALL) as application:
            await assert_true(application, vectors, stored)

    run(work())
