"""Searches through the application, scored independently from the stored vectors."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import numpy as np
import pytest

from resight.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    UndecodableImage,
)
from service.application.ingest import IngestItem
from service.domain.crop import CropFilter, TimeRange
from service.domain.query import QueryEmbedding, SearchMode, SearchQuery


async def fill(application, at, count: int = 60) -> dict[str, tuple[str, float, bytes]]:
    """Crops over three cameras, one second apart; by id: camera, second, image."""
    stored = {}
    for index in range(count):
        image, camera = b"crop %d" % index, f"c{index % 3 + 1}"
        result = await application.ingest.submit(IngestItem("", camera, at(index), image))
        stored[str(result.crop_id)] = (camera, index, image)
    return stored


def ranked(stored, vectors, query: np.ndarray, passes) -> list[str]:
    scores = {
        crop_id: float(np.dot(vectors(image).astype(float), query.astype(float)))
        for crop_id, (camera, second, image) in stored.items()
        if passes(camera, second)
    }
    return sorted(scores, key=lambda crop_id: -scores[crop_id])


def test_filters_choose_exactly_the_rows_they_name(opened, run, at, vectors) -> None:
    cases = [
        (CropFilter(), lambda _camera, _second: True),
        (CropFilter(include_camera_ids=["c1", "c3"]), lambda camera, _second: camera != "c2"),
        (CropFilter(exclude_camera_ids=["c1"]), lambda camera, _second: camera != "c1"),
        (
            CropFilter(include_camera_ids=["c1", "c2"], exclude_camera_ids=["c1"]),
            lambda camera, _second: camera == "c2",
        ),
        (CropFilter(["c1"], ["c1"]), lambda _camera, _second: False),
        (
            CropFilter(capture_range=TimeRange(at(10), at(20))),
            lambda _camera, second: 10 <= second < 20,
        ),
        (
            CropFilter(capture_range=TimeRange(start_time=at(50))),
            lambda _camera, second: second >= 50,
        ),
        (
            CropFilter(["c2"], capture_range=TimeRange(end_time=at(5))),
            lambda c, s: c == "c2" and s < 5,
        ),
    ]

    async def work() -> None:
        async with opened() as application:
            stored = await fill(application, at)
            query = vectors(b"query")
            for chosen, passes in cases:
                answer = await application.search.search(
                    SearchQuery(image=b"query", top_k=1000, filter=chosen)
                )
                expected = ranked(stored, vectors, query, passes)
                assert [str(match.crop.crop_id) for match in answer.matches] == expected
                assert (answer.rows_scanned, answer.rows_total) == (len(expected), 60)
                assert answer.model_version == "hash-1"
                for match in answer.matches:
                    camera, second, image = stored[str(match.crop.crop_id)]
                    assert match.score == pytest.approx(vectors(image) @ query, abs=1e-6)
                    assert (match.crop.camera_id, match.crop.capture_time) == (camera, at(second))

    run(work())


def test_defaults_and_min_score(opened, run, at, vectors) -> None:
    async def work() -> None:
        async with opened() as application:
            await fill(application, at)
            answer = await application.search.search(SearchQuery(image=b"query"))
            scores = [match.score for match in answer.matches]
            assert len(scores) == 10
            assert scores == sorted(scores, reverse=True)
            assert answer.mode is SearchMode.EXACT_SCAN
            few = await application.search.search(SearchQuery(image=b"query", min_score=scores[3]))
            assert [match.score for match in few.matches] == scores[:4]

    run(work())


def test_a_crop_does_not_find_itself(opened, run, at, vectors) -> None:
    async def work() -> None:
        async with opened() as application:
            stored = await fill(application, at)
            crop_id, (_, _, image) = next(iter(stored.items()))
            answer = await application.search.search(SearchQuery(crop_id=crop_id, top_k=1000))
            expected = ranked(stored, vectors, vectors(image), lambda _camera, _second: True)
            assert expected[0] == crop_id
            assert [str(match.crop.crop_id) for match in answer.matches] == expected[1:]

    run(work())


def test_an_embedding_of_any_length_finds_the_same(opened, run, at, vectors) -> None:
    async def work() -> None:
        async with opened() as application:
            await fill(application, at)
            by_image = await application.search.search(SearchQuery(image=b"query"))
            vector, version = await application.embed.embed("", b"query")
            for scale in (1.0, 2.5):
                answer = await application.search.search(
                    SearchQuery(embedding=QueryEmbedding(scale * vector, version))
                )
                assert [m.crop for m in answer.matches] == [m.crop for m in by_image.matches]

    run(work())


def test_a_deleted_crop_is_found_no_more(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            stored = await fill(application, at, count=5)
            crop_id = next(iter(stored))
            await application.crops.delete("", crop_id)
            answer = await application.search.search(SearchQuery(image=b"query"))
            assert crop_id not in {str(match.crop.crop_id) for match in answer.matches}
            assert (len(answer.matches), answer.rows_total) == (4, 4)
            for call in (
                application.crops.get("", crop_id),
                application.crops.delete("", crop_id),
                application.search.search(SearchQuery(crop_id=crop_id)),
            ):
                with pytest.raises(NotFound, match=crop_id):
                    await call
            files = [path for path in (tmp_path / "data/blobs").rglob("*") if path.is_file()]
            assert len(files) == 4
            again = await application.ingest.submit(
                IngestItem("", "c1", at(0), b"crop 0", crop_id=crop_id)
            )
            assert again.outcome.name == "ACCEPTED"

    run(work())


@pytest.mark.parametrize(
    ("query", "error", "named"),
    [
        (SearchQuery(), InvalidArgument, "exactly one"),
        (SearchQuery(image=b"q", crop_id="x"), InvalidArgument, "image and crop_id"),
        (SearchQuery(image=b""), InvalidArgument, "image"),
        (SearchQuery(image=b"bad"), UndecodableImage, "image"),
        (SearchQuery(image=b"q", top_k=0), InvalidArgument, "top_k"),
        (SearchQuery(image=b"q", top_k=-1), InvalidArgument, "top_k"),
        (SearchQuery(image=b"q", top_k=10**9), InvalidArgument, "1000"),
        (SearchQuery(image=b"q", min_score=float("nan")), InvalidArgument, "min_score"),
        (SearchQuery(image=b"q", min_score=1.01), InvalidArgument, "min_score"),
        (SearchQuery(image=b"q", gallery="nowhere"), NotFound, "nowhere"),
        (SearchQuery(crop_id="nonsense"), InvalidArgument, "crop_id"),
        (SearchQuery(crop_id="0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"), NotFound, "0198c0de"),
        (
            SearchQuery(image=b"q", filter=CropFilter(include_camera_ids=["c1", "c9"])),
            NotFound,
            "include_camera_ids: camera 'c9'",
        ),
        (
            SearchQuery(image=b"q", filter=CropFilter(exclude_camera_ids=["c8"])),
            NotFound,
            "exclude_camera_ids: camera 'c8'",
        ),
        (
            SearchQuery(
                image=b"q",
                filter=CropFilter(
                    capture_range=TimeRange(
                        datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
                    )
                ),
            ),
            InvalidArgument,
            "is after",
        ),
        (
            SearchQuery(
                image=b"q",
                filter=CropFilter(capture_range=TimeRange(*2 * [datetime(2026, 1, 1, tzinfo=UTC)])),
            ),
            InvalidArgument,
            "equals",
        ),
        (
            SearchQuery(embedding=QueryEmbedding(np.ones(32, np.float32), "other")),
            FailedPrecondition,
            "hash-1",
        ),
        (
            SearchQuery(embedding=QueryEmbedding(np.ones(31, np.float32), "hash-1")),
            InvalidArgument,
            "31",
        ),
        (
            SearchQuery(embedding=QueryEmbedding(np.zeros(32, np.float32), "hash-1")),
            InvalidArgument,
            "zeros",
        ),
        (
            SearchQuery(embedding=QueryEmbedding([float("inf")] + 31 * [0.0], "hash-1")),
            InvalidArgument,
            "NaN",
        ),
    ],
)
def test_a_bad_query_says_what_is_wrong(opened, run, query, error, named) -> None:
    async def work() -> None:
        async with opened() as application:
            with pytest.raises(error, match=named):
                await application.search.search(query)

    run(work())


def test_a_bad_filter_costs_no_embedding(opened, run, embedder) -> None:
    async def work() -> None:
        async with opened() as application:
            with pytest.raises(InvalidArgument):
                await application.search.search(SearchQuery(image=b"q", top_k=0))
            assert embedder.calls == 0

    run(work())


def test_a_passed_deadline_stops_before_the_search(opened, run) -> None:
    async def work() -> None:
        async with opened() as application:
            with pytest.raises(DeadlineExceeded):
                await application.search.search(
                    SearchQuery(image=b"q", deadline=time.monotonic() - 1)
                )

    run(work())


def test_an_empty_gallery_answers_nothing(opened, run) -> None:
    async def work() -> None:
        async with opened() as application:
            answer = await application.search.search(SearchQuery(image=b"q"))
            assert (list(answer.matches), answer.rows_total) == ([], 0)

    run(work())


def test_galleries_do_not_see_each_other(opened, run, at) -> None:
    from service.domain.crop import Camera

    async def work() -> None:
        async with opened() as application:
            await application.cameras.create("site-b", Camera("c1"))
            one = await application.ingest.submit(IngestItem("", "c1", at(0), b"x"))
            two = await application.ingest.submit(IngestItem("site-b", "c1", at(0), b"x"))
            assert one.outcome is two.outcome
            assert one.crop_id != two.crop_id
            answer = await application.search.search(SearchQuery("site-b", image=b"x"))
            assert [match.crop.crop_id for match in answer.matches] == [two.crop_id]
            with pytest.raises(NotFound):
                await application.crops.get("site-b", str(one.crop_id))
            assert application.gauges()["site-b"].vectors == 1

    run(work())
