"""A snapshot from the middle of an erasure, restored: it is finished, and its receipt true."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from resight.errors import Unavailable
from service.domain.crop import Camera
from service.domain.erasure import CameraSubject, ErasureState
from service.erasure_ledger import Erasure as LedgerEntry
from service.erasure_ledger import erasures
from service.snapshot.restoring import restore
from service.snapshot.taking import take

KINDS = ["sqlite", "postgresql"]
CROPS = 24
GOVERNANCE = {"erasure_batch_crops": 1}


async def eventually(look: Any) -> Any:
    async with asyncio.timeout(120):
        while not (found := await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return found


async def done(application: Any, erasure_id: str) -> Any:
    async def look() -> Any:
        found = await application.erasures.get("", erasure_id)
        return found if found.state is ErasureState.DONE else None

    return await eventually(look)


@pytest.mark.parametrize("remembered", [True, False], ids=["ledger", "no-ledger"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_finished_after_the_restore(
    tmp_path, place, serving, put, rows, kind, remembered
) -> None:
    ledger = tmp_path / "ledger"
    here = place("here", kind, erasures_dir=ledger, governance=GOVERNANCE)
    elsewhere = ledger if remembered else tmp_path / "other-ledger"
    there = place("there", kind, erasures_dir=elsewhere, governance=GOVERNANCE)

    async def begin() -> tuple[str, set[str]]:
        async with serving(here) as application:
            for camera in ("c1", "c2"):
                await application.cameras.create("", Camera(camera))
            ids = [str(await put(application, number)) for number in range(CROPS)]
            made = await application.erasures.plan("", CameraSubject("c1"), "asked for")
            confirming = asyncio.create_task(
                application.erasures.confirm("", str(made.erasure_id), crops=CROPS // 2)
            )

            async def has_begun() -> bool:
                return len(rows(here)["crops"]) < CROPS

            await eventually(has_begun)
            application.erasing.stop()
            with pytest.raises(Unavailable, match="stopping"):
                await confirming
            return str(made.erasure_id), {*ids[::2]}

    erasure_id, listed = asyncio.run(begin())
    taken = len(rows(here)["crops"])
    assert CROPS // 2 < taken < CROPS
    assert [row[3] for row in rows(here)["erasures"]] == ["running"]
    manifest = take(here, tmp_path / "s", images=True)
    assert manifest.tables["crops"] == taken

    async def finish(settings: Any) -> dict[str, Any]:
        async with serving(settings) as application:
            found = await done(application, erasure_id)
            assert (found.removed, found.absent, found.listed) == (CROPS // 2, 0, CROPS // 2)
            kept = {str(crop.crop_id) for crop in (await application.crops.list("")).items}
            assert len(kept) == CROPS // 2
            assert not kept & listed
            told: dict[str, Any] = json.loads(found.receipt)["receipt"]
            return told

    before = asyncio.run(finish(here))
    gone = {entry.blob_id.hex for entry in erasures(ledger)}
    assert len(gone) == CROPS // 2
    restored = restore(there, tmp_path / "s")
    assert restored.erased == (taken - CROPS // 2 if remembered else 0)
    assert [row[3] for row in rows(there)["erasures"]] == ["running"]
    after = asyncio.run(finish(there))
    for told in (before, after):
        assert set(told["crops"]["removed"]["ids"]) == listed
        assert told["crops"]["absent"]["ids"] == []
    assert after["removed_from"]["vectors"] == before["removed_from"]["vectors"] != []
    stored = {path.name for path in (there.data_dir / "blobs").rglob("*") if path.is_file()}
    assert len(stored) == CROPS // 2
    assert not stored & gone
    assert len(rows(there)["embeddings"]) == CROPS // 2


def test_a_crop_on_two_lists_is_removed_by_one(tmp_path, place, serving, put, rows) -> None:
    """Killed after the ledger and before the commit: the next start deletes it for the erasure."""
    settings = place("here", erasures_dir=tmp_path / "ledger")

    async def begin() -> list[str]:
        async with serving(settings) as application:
            for camera in ("c1", "c2"):
                await application.cameras.create("", Camera(camera))
            for number in range(6):
                await put(application, number)
            found = []
            application.erasing.stop()
            for _ in range(2):
                made = await application.erasures.plan("", CameraSubject("c1"), "asked for")
                with pytest.raises(Unavailable, match="stopping"):
                    await application.erasures.confirm("", str(made.erasure_id), crops=3)
                found.append(str(made.erasure_id))
            # What a batch does before its commit.
            listed = {
                item.crop_id for item in (await application.erasures.crops("", found[0])).items
            }
            stored = [(row[2], row[9]) for row in rows(settings)["crops"] if row[2] in listed]
            assert len(stored) == 3
            ledger, now = application._foundation.ledger, datetime.now(UTC)

            def killed(connection: Any) -> None:
                for crop_id, blob_id in stored:
                    ledger.note(connection, LedgerEntry("default", crop_id, blob_id, now))

            await application._catalog.change(killed)
            return found

    first, second = asyncio.run(begin())

    async def finish() -> None:
        async with serving(settings) as application:
            one, other = await done(application, first), await done(application, second)
            assert (one.removed, one.absent) == (3, 0)
            assert (other.removed, other.absent) == (0, 3)

    asyncio.run(finish())
