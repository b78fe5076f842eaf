"""Erased crops that come back with a restored catalog are gone before anything is served."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from service.application.erasure_replay import Replayed, replay
from service.application.ingest import IngestItem
from service.catalog import crop_reads
from service.erasure_ledger import Erasure, ErasureLedger

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
