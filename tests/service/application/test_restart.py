"""What a restart finds: everything acknowledged, nothing half done."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from resight.errors import FailedPrecondition
from service.application.ingest import IngestItem
from service.domain.query import SearchQuery

WRITER = Path(__file__).parent / "ingesting_process.py"


def test_a_restart_answers_the_same(opened, run, at) -> None:
    async def answers(application) -> list[tuple[str, float]]:
        answer = await application.search.search(SearchQuery(image=b"query", top_k=100))
        return [(str(match.crop.crop_id), match.score) for match in answer.matches]

    async def work() -> None:
        async with opened() as application:
            for index in range(20):
                await application.ingest.submit(IngestItem("", "c1", at(index), b"%d" % index))
            first = await application.crops.list("", None, 1)
            await application.crops.delete("", str(first.items[0].crop_id))
            before = await answers(application)
        async with opened(cameras=False) as application:
            assert await answers(application) == before
            assert len(before) == application.crop_count == 19

    run(work())


def test_vectors_of_another_model_are_not_mixed(opened, run, at, embedder) -> None:
    other = type(embedder)("hash-2")

    async def work() -> None:
        async with opened() as application:
            stored = await application.ingest.submit(IngestItem("", "c1", at(0), b"x"))
        with pytest.raises(FailedPrecondition, match=r"hash-1.*hash-2.*--data"):
            async with opened(cameras=False, with_embedder=other):
                pass
        async with opened(cameras=False) as application:
            await application.crops.delete("", str(stored.crop_id))
        async with opened(cameras=False, with_embedder=other) as application:
            assert (await application.crops.stats("")).model_version == "hash-2"

    run(work())


def test_one_process_a_data_directory(opened, run) -> None:
    async def work() -> None:
        async with opened():
            with pytest.raises(FailedPrecondition, match="in use by process"):
                async with opened(cameras=False):
                    pass

    run(work())


def test_an_index_that_failed_once_catches_up(opened, run, at, monkeypatch) -> None:
    async def work() -> None:
        async with opened() as application:
            index = application._galleries.get("").serving.index
            with monkeypatch.context() as patch:
                patch.setattr(index, "add", lambda _: 1 / 0)
                late = await application.ingest.submit(IngestItem("", "c1", at(0), b"late"))
                assert late.outcome.name == "ACCEPTED", "it is durable all the same"
                assert application.gauges()["default"].index_lag_seconds > 0
                stats = await application.crops.stats("")
                assert (stats.crops, stats.searchable) == (1, 0)
            await application.ingest.submit(IngestItem("", "c1", at(1), b"next"))
            assert application.gauges()["default"].index_lag_seconds == 0
            answer = await application.search.search(SearchQuery(image=b"late"))
            assert answer.matches[0].crop.crop_id == late.crop_id

    run(work())


def test_images_of_no_crop_are_swept(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            await application.ingest.submit(IngestItem("", "c1", at(0), b"kept"))
        blobs = tmp_path / "data" / "blobs"
        (kept,) = (path for path in blobs.rglob("*") if path.is_file())
        orphan = blobs / "default" / "ff" / ("0" * 30 + "ff")
        orphan.parent.mkdir(exist_ok=True)
        orphan.write_bytes(b"left by a crash")
        half = blobs / ".writing" / "half"
        half.write_bytes(b"half")
        foreign = blobs / "README"
        foreign.write_text("not ours")
        async with opened(cameras=False) as application:
            await application.sweeping.finished()
            report = application.sweeping.report
            assert (report.images, report.orphans, report.foreign) == (2, 1, 1)
        assert kept.exists()
        assert foreign.exists()
        assert not orphan.exists()
        assert not half.exists()

    run(work())


def test_an_interrupted_deletion_is_finished(opened, run, at, query, tmp_path, monkeypatch) -> None:
    async def work() -> None:
        async with opened() as application:
            stored = await application.ingest.submit(IngestItem("", "c1", at(0), b"x"))

            def fails(key: str) -> None:
                raise OSError("store is away")

            monkeypatch.setattr(application._blobs, "delete", fails)
            from resight.errors import Unavailable

            with pytest.raises(Unavailable, match="not be removed"):
                await application.crops.delete("", str(stored.crop_id))
            assert application.crop_count == 0
        async with opened(cameras=False):
            files = [path for path in (tmp_path / "data/blobs").rglob("*") if path.is_file()]
            assert files == []
        assert query("SELECT COUNT(*) FROM blob_removals") == [(0,)]

    run(work())


def test_kill_9_loses_nothing_acknowledged(
    opened, run, tmp_path, catalog_url, query, vectors
) -> None:
    """A process that ingests and deletes is killed ten times at random moments."""
    rng = random.Random(7)
    accepted: dict[str, str] = {}
    deleted: set[str] = set()
    asked: set[str] = set()
    for round_number in range(10):
        moment = rng.randint(12, 40), 0.02 * rng.random()
        for line in killed_process(tmp_path / "data", catalog_url, round_number, *moment):
            word, crop_id, image = line.split()
            if word == "accepted":
                accepted[crop_id] = image
            elif word == "deleting":
                asked.add(crop_id)
            elif word == "deleted":
                deleted.add(crop_id)
    assert len(accepted) > 50
    assert deleted
    run(check(opened, tmp_path, query, vectors, accepted, deleted, asked))


def killed_process(data: Path, url: str, seed: int, lines: int, seconds: float) -> list[str]:
    """SIGKILL a process so long after so many lines; the whole lines it wrote."""
    with subprocess.Popen(
        [sys.executable, str(WRITER), str(data), url, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        # A slow machine would have acknowledged nothing after a time alone.
        output = "".join(process.stdout.readline() for _ in range(lines))
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        output += process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    return output.splitlines() if output.endswith("\n") else output.splitlines()[:-1]


async def check(opened, tmp_path, query, vectors, accepted, deleted, asked) -> None:
    async with opened(cameras=False) as application:
        await application.sweeping.finished()
        listed: dict[str, bytes] = {}
        token = ""
        while True:
            page = await application.crops.list("", None, 1000, token)
            for crop in page.items:
                stored = await application.crops.get("", str(crop.crop_id), include_image=True)
                listed[str(crop.crop_id)] = stored.image
            token = page.next_page_token
            if not token:
                break
        for crop_id, image in accepted.items():
            if crop_id not in asked:
                assert listed[crop_id] == image.encode(), "an acknowledged crop is lost"
        assert not deleted & set(listed)
        # The index holds the catalog's crops, each with the vector of its image.
        assert application.crop_count == len(listed)
        for crop_id, image in list(listed.items())[::25]:
            answer = await application.search.search(SearchQuery(image=image, top_k=1))
            assert str(answer.matches[0].crop.crop_id) == crop_id
            assert answer.matches[0].score == pytest.approx(1.0)
    files = [path for path in (tmp_path / "data/blobs").rglob("*") if path.is_file()]
    assert len(files) == len(listed), "no image without crop, no crop without image"
    if (tmp_path / "catalog.sqlite").exists():
        assert query("PRAGMA integrity_check") == [("ok",)]
        assert query("PRAGMA foreign_key_check") == []
    rows = query("SELECT crops.crop_id, vector FROM crops LEFT JOIN embeddings USING (crop_row)")
    assert len(rows) == len(listed)
    for crop_id, vector in rows:
        from uuid import UUID

        expected = vectors(listed[str(UUID(bytes=crop_id))])
        np.testing.assert_array_equal(np.frombuffer(vector, "<f4"), expected)
    # The log tells the same story, without a gap.
    log = query("SELECT position, kind, crop_id FROM changes ORDER BY position")
    alive: set[bytes] = set()
    for expected_position, (position, kind, crop_id) in enumerate(log, start=1):
        assert position == expected_position
        if kind == 2:
            alive.add(crop_id)
        elif kind == 3:
            alive.remove(crop_id)
    assert alive == {crop_id for crop_id, _ in rows}
