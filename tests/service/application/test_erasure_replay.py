"""Erased crops that come back with a restored catalog are gone before anything is served."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from resight.errors import FailedPrecondition, NotFound, Unavailable
from service.application.erasure_replay import Replayed, replay
from service.application.ingest import IngestItem
from service.catalog import crop_reads
from service.erasure_ledger import Erasure, ErasureLedger, erasures

DYING = Path(__file__).with_name("dying_deletion.py")
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def test_what_the_ledger_names_is_erased_again_and_logged(
    opened, run, at, tmp_path, query, clock
) -> None:
    folder = tmp_path / "ledger"
    kept: list[UUID] = []

    async def work() -> None:
        ledger = ErasureLedger(folder, "here")
        async with opened() as application:
            catalog = application._catalog
            for index in range(6):
                stored = await application.ingest.submit(
                    IngestItem("", "c1", at(index), b"%d" % index)
                )
                assert stored.crop_id is not None
                gallery = application._galleries.get("").record.gallery_row
                record = catalog.read_now(crop_reads.crop, gallery, stored.crop_id)
                if index % 2:
                    ledger.append([Erasure("default", stored.crop_id, record.blob_id, NOON)] * 2)
                else:
                    kept.append(stored.crop_id)
                    # Of the same id, but another stored instance.
                    ledger.append([Erasure("default", stored.crop_id, uuid4(), NOON)])
        async with opened(cameras=False) as application:
            assert replay(application._catalog, folder, clock) == Replayed(9, 3)
            assert replay(application._catalog, folder, clock) == Replayed(9, 0)

    run(work())
    assert {UUID(bytes=bytes(row[0])) for row in query("SELECT crop_id FROM crops")} == set(kept)
    assert query("SELECT count(*) FROM embeddings") == [(3,)]
    assert query("SELECT count(*) FROM blob_removals") == [(3,)]
    positions = [row[0] for row in query("SELECT position FROM changes ORDER BY position")]
    assert positions == list(range(1, 3 + 6 + 3 + 1)), "cameras, crops, deletions; no gap"
    assert query("SELECT position FROM galleries") == [(12,)]

    async def restarted() -> None:
        async with opened(cameras=False) as application:
            listed = await application.crops.list("")
            assert {crop.crop_id for crop in listed.items} == set(kept)
            assert application.crop_count == 3

    run(restarted())
    assert query("SELECT count(*) FROM blob_removals") == [(0,)]


def test_a_deletion_is_in_the_ledger_and_a_refused_one_is_not(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = [
                (await application.ingest.submit(IngestItem("", "c1", at(n), b"%d" % n))).crop_id
                for n in range(3)
            ]
            blobs = {}
            row = application._galleries.get("").row
            for crop_id in ids:
                record = application._catalog.read_now(crop_reads.crop, row, crop_id)
                blobs[crop_id] = record.blob_id
            await application.crops.delete("", str(ids[1]))
            with pytest.raises(NotFound):
                await application.crops.delete("", str(ids[1]))
            await application.crops.delete("", str(ids[0]))
            found = list(erasures(tmp_path / "data" / "erasures"))
            assert [(each.gallery, each.crop_id, each.blob_id) for each in found] == [
                ("default", crop_id, blobs[crop_id]) for crop_id in (ids[1], ids[0])
            ]

    run(work())


def test_nothing_is_deleted_when_the_ledger_cannot_be_written(
    opened, run, at, tmp_path, monkeypatch
) -> None:
    def full(_: object) -> None:
        raise Unavailable("no room", reason="ERASURE_LEDGER_UNWRITABLE")

    async def work() -> None:
        async with opened() as application:
            stored = await application.ingest.submit(IngestItem("", "c1", at(0), b"x"))
            with monkeypatch.context() as patch:
                patch.setattr(application._foundation.ledger, "append", full)
                with pytest.raises(Unavailable, match="no room"):
                    await application.crops.delete("", str(stored.crop_id))
            assert (await application.crops.get("", str(stored.crop_id), True)).image == b"x"
            assert application.crop_count == 1
            await application.crops.delete("", str(stored.crop_id))
            assert application.crop_count == 0

    run(work())


def test_a_catalog_put_back_by_hand_is_served_without_what_was_erased(
    opened, run, at, tmp_path, catalog_url
) -> None:
    """Without `resight gallery restore`: the database's own backup, put back beside the ledger."""
    if not catalog_url.startswith("sqlite"):
        pytest.skip("the file of a SQLite catalog is put back")
    database = tmp_path / "catalog.sqlite"

    async def work() -> None:
        async with opened() as application:
            for number in range(4):
                await application.ingest.submit(IngestItem("", "c1", at(number), b"%d" % number))
        saved = database.read_bytes()
        async with opened(cameras=False) as application:
            (first, *_) = (await application.crops.list("")).items
            await application.crops.delete("", str(first.crop_id))
        database.write_bytes(saved)
        async with opened(cameras=False) as application:
            assert application.crop_count == 3
            assert first.crop_id not in {
                c.crop_id for c in (await application.crops.list("")).items
            }

    run(work())


def test_a_damaged_ledger_stops_the_start(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            stored = await application.ingest.submit(IngestItem("", "c1", at(0), b"x"))
            await application.crops.delete("", str(stored.crop_id))
        (path,) = (tmp_path / "data" / "erasures").iterdir()
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b"default", b"defaulu"))
        with pytest.raises(FailedPrecondition, match="line 1 of the erasure ledger"):
            async with opened(cameras=False):
                pass
        path.write_bytes(whole)
        async with opened(cameras=False):
            pass

    run(work())


@pytest.mark.parametrize(
    ("point", "gone"),
    [
        ("before the ledger", False),
        ("half a line", False),
        ("before the commit", True),
        ("after the commit", True),
    ],
)
def test_killed_in_the_middle_of_a_deletion(
    opened, run, at, tmp_path, catalog_url, query, point, gone
) -> None:
    """Whole or not at all; and what the ledger has is not served after the next start."""

    async def fill() -> UUID:
        async with opened() as application:
            await application.ingest.submit(IngestItem("", "c1", at(1), b"kept"))
            return (await application.ingest.submit(IngestItem("", "c1", at(0), b"x"))).crop_id

    crop_id = run(fill())
    ended = subprocess.run(
        [sys.executable, DYING, tmp_path / "data", catalog_url, str(crop_id), point],
        cwd=DYING.parents[3],
        env={**os.environ, "PYTHONPATH": str(DYING.parents[3])},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    if point == "before the commit":
        assert query("SELECT count(*) FROM crops") == [(2,)], "it had not committed"

    async def served() -> None:
        async with opened(cameras=False) as application:
            listed = {crop.crop_id for crop in (await application.crops.list("")).items}
            assert (crop_id in listed) is not gone
            assert application.crop_count == len(listed) == (1 if gone else 2)
            if not gone:
                await application.crops.delete("", str(crop_id))
        assert [entry.crop_id for entry in erasures(tmp_path / "data" / "erasures")] == [crop_id]
        assert len([p for p in (tmp_path / "data" / "blobs").rglob("*") if p.is_file()]) == 1

    run(served())
