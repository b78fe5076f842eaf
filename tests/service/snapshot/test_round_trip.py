"""What was stored is there after a snapshot and a restore, between any two kinds of database."""

from __future__ import annotations

import asyncio
import json
import threading
from itertools import count
from pathlib import Path

import pytest

from resight.errors import FailedPrecondition
from service.adaptation_settings import PrivacySettings
from service.catalog import schema
from service.catalog.engine import open_engine
from service.domain.query import SearchQuery
from service.erasure_ledger import erasures
from service.snapshot.restoring import restore
from service.snapshot.taking import take

KINDS = ["sqlite", "postgresql"]


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("name", ["folder", "one.tar"])
def test_everything_comes_back(
    tmp_path, place, filled, serving, rows, answers, put, source, target, name
) -> None:
    here, there = place("here", source), place("there", target)
    expected = filled(here)
    stored = rows(here)
    manifest = take(here, tmp_path / name, images=True)
    assert manifest.tables == {table: len(found) for table, found in stored.items()}
    assert manifest.images is not None
    assert (manifest.images.stored, manifest.images.missing) == (23, 0)
    restored = restore(there, tmp_path / name)
    assert (restored.images, restored.erased) == (23, 0)
    assert rows(there) == stored
    bundles = sorted((here.data_dir / "bundles").rglob("*.tar"))
    assert [path.read_bytes() for path in bundles] == [
        path.read_bytes() for path in sorted((there.data_dir / "bundles").rglob("*.tar"))
    ]
    assert len(bundles) == 1

    async def work() -> None:
        async with serving(there) as application:
            assert await answers(application) == expected
            listed = await application.crops.list("")
            for crop in listed.items:
                assert (await application.crops.get("", str(crop.crop_id), True)).image
            before = {row[0] for row in stored["crops"]}
            await put(application, 1000)
            (fresh,) = {row[0] for row in rows(there)["crops"]} - before
            # Rows 20 to 25 were given; 20 and 25 may be of deleted crops.
            assert fresh == 26, "no row number is given twice"

    asyncio.run(work())


def test_a_snapshot_of_a_snapshot_is_equal(tmp_path, place, filled) -> None:
    here, there = place("here"), place("there")
    filled(here)
    first = take(here, tmp_path / "one", images=True)
    restore(there, tmp_path / "one")
    second = take(there, tmp_path / "two", images=True)
    assert (first.tables, first.galleries, first.images) == (
        second.tables,
        second.galleries,
        second.images,
    )
    for name in first.files.keys() - {"catalog.sqlite"}:
        assert first.files[name] == second.files[name]


@pytest.mark.parametrize("kind", KINDS)
def test_beside_a_service_that_writes_and_deletes(
    tmp_path, place, filled, serving, rows, put, kind
) -> None:
    here, there = place("here", kind), place("there")
    filled(here)

    async def work() -> object:
        async with serving(here) as application:
            ended = threading.Event()
            taking = asyncio.create_task(
                asyncio.to_thread(take, here, tmp_path / "s.tar", images=True)
            )
            taking.add_done_callback(lambda _: ended.set())
            for number in count(1000):
                crop_id = await put(application, number)
                if number % 2:
                    await application.crops.delete("", str(crop_id))
                if ended.is_set():
                    return await taking
            return None

    manifest = asyncio.run(work())
    restore(there, tmp_path / "s.tar")
    stored = rows(there)
    # Of processes that do not serve what was restored.
    gone = {"replicas": 0, "replica_positions": 0}
    assert {name: len(found) for name, found in stored.items()} == dict(manifest.tables) | gone
    galleries = {row[0]: row[2] for row in stored["galleries"]}
    for gallery, position in galleries.items():
        positions = [row[1] for row in stored["changes"] if row[0] == gallery]
        assert positions == list(range(1, position + 1))
    assert len(stored["embeddings"]) == len(stored["crops"])
    images = manifest.images
    assert images.stored + images.deleted == len(stored["crops"])
    assert images.missing == images.damaged == 0


@pytest.mark.parametrize("kind", KINDS)
def test_erased_after_the_snapshot_is_served_nowhere(
    tmp_path, place, filled, serving, answers, kind
) -> None:
    """Restored from before an erasure, with the ledger in its place."""
    ledger = tmp_path / "ledger"
    here = place("here", kind, erasures_dir=ledger)
    there = place("there", kind, erasures_dir=ledger)
    filled(here)
    before = {entry.blob_id for entry in erasures(ledger)}
    assert len(before) == 2
    take(here, tmp_path / "s", images=True)

    async def erase() -> tuple[str, object]:
        async with serving(here) as application:
            query = SearchQuery(image=b"image 3", top_k=1)
            (best,) = (await application.search.search(query)).matches
            await application.crops.delete("", str(best.crop.crop_id))
            return str(best.crop.crop_id), await answers(application)

    crop_id, expected = asyncio.run(erase())
    (entry,) = [entry for entry in erasures(ledger) if entry.blob_id not in before]
    restored = restore(there, tmp_path / "s")
    assert (restored.erased, restored.images) == (1, 22)
    assert not list((there.data_dir / "blobs").rglob(entry.blob_id.hex))

    async def work() -> None:
        async with serving(there) as application:
            assert await answers(application) == expected
            assert crop_id not in repr(await application.crops.list(""))

    asyncio.run(work())


def test_index_files_of_the_catalog_that_was_replaced_are_not_believed(
    tmp_path, place, filled, serving, answers, put
) -> None:
    """The catalog goes back; the index files that somebody puts back with it are of later."""
    here, there = place("here"), place("there")
    filled(here)
    take(here, tmp_path / "s", images=True)

    async def later() -> None:
        async with serving(here) as application:
            for number in range(200, 230):
                await put(application, number)

    asyncio.run(later())
    restore(there, tmp_path / "s")
    (here.data_dir / "index").rename(there.data_dir / "index")
    (folder,) = (there.data_dir / "index" / "default").iterdir()
    mark = json.loads((folder / "manifest.json").read_bytes())["position"]
    assert mark == 2 + 20 + 2 + 30

    async def work() -> None:
        async with serving(there) as application:
            found = await answers(application)
            assert len(found["default b'query 1'"]) == 18

    asyncio.run(work())


def test_restore_removes_the_index_files_that_are_there(tmp_path, place, filled) -> None:
    here, there = place("here"), place("there")
    filled(here)
    take(here, tmp_path / "s", images=False)
    old = there.data_dir / "index" / "default" / "x.segment"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"vectors of somebody who was erased")
    restore(there, tmp_path / "s")
    assert not old.exists()


def test_deleted_vectors_are_not_in_the_copy(tmp_path, place, filled, serving, rows, put) -> None:
    here = place("here")
    filled(here)

    async def work() -> bytes:
        async with serving(here) as application:
            crop_id = await put(application, 3000)
            vector = rows(here)["embeddings"][-1][2]
            await application.crops.delete("", str(crop_id))
            return bytes(vector)

    vector = asyncio.run(work())
    take(here, tmp_path / "s", images=False)
    assert vector not in (tmp_path / "s" / "catalog.sqlite").read_bytes()


def test_an_older_schema_is_upgraded(tmp_path, place) -> None:
    here, there = place("here"), place("there")
    here.data_dir.mkdir()
    engine = open_engine(here.resolved_database_url(), pool_size=1, writer=True)
    with engine.begin() as connection:
        schema.upgrade_to(connection, "0001")
    engine.dispose()
    assert take(here, tmp_path / "s", images=False).schema == "0001"
    restored = restore(there, tmp_path / "s")
    assert restored.schema == schema.head_revision()
    engine = open_engine(there.resolved_database_url(), pool_size=1, writer=False)
    assert schema.current_revision(engine) == schema.head_revision()
    engine.dispose()


def test_an_archive_of_another_replica_comes_from_the_blob_store(tmp_path, place, filled) -> None:
    here, there = place("here"), place("there")
    filled(here)
    (archive,) = (here.data_dir / "bundles").rglob("*.tar")
    shared = here.data_dir / "blobs" / ".bundles" / "default" / archive.name
    shared.parent.mkdir(parents=True, exist_ok=True)
    archive.rename(shared)
    assert take(here, tmp_path / "s", images=False).missing_bundles == []
    restore(there, tmp_path / "s")
    for root in (there.data_dir / "bundles", there.data_dir / "blobs" / ".bundles"):
        assert (root / "default" / archive.name).read_bytes() == shared.read_bytes()
    shared.write_bytes(b"damaged")
    missing = take(here, tmp_path / "s2", images=False).missing_bundles
    assert missing == [f"bundles/default/{archive.name}"]


def test_privacy_mode_lacks_no_images(tmp_path, place, filled, serving, put) -> None:
    here = place("here")
    filled(here)
    private = here.model_copy(update={"privacy": PrivacySettings(store_images=False)})

    async def work() -> None:
        async with serving(private) as application:
            await put(application, 500)

    asyncio.run(work())
    images = take(private, tmp_path / "s", images=True).images
    assert images is not None
    assert (images.stored, images.deleted, images.missing, images.damaged) == (23, 0, 0, 0)


def test_no_secret_and_no_place_of_the_machine(tmp_path, place, filled, postgresql_server) -> None:
    here = place("here", "postgresql")
    filled(here)
    manifest = take(here, tmp_path / "s", images=False)
    written = (tmp_path / "s" / "snapshot.json").read_text()
    assert "host=" not in written
    assert str(tmp_path) not in written
    assert manifest.database == "postgresql"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "s").rglob("*")} == {0}


def test_no_catalog_is_said(tmp_path, place) -> None:
    with pytest.raises(FailedPrecondition, match=r"no catalog at .*--data"):
        take(place("nothing"), tmp_path / "s", images=False)
    assert not (tmp_path / "nothing").exists()
    assert [path.name for path in Path(tmp_path).iterdir()] == []
