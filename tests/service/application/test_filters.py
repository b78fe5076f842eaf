"""Filters by every field, in search and listing: exactly the rows they name, on each database."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import numpy as np
import pytest

from resight.errors import InvalidArgument, NotFound
from service.application.ingest import IngestItem
from service.domain.crop import AttributeTerm, CropFilter, TimeRange
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting
from service.domain.query import SearchQuery

ZONES = ["", "hall", "Straße", "o'hara \"%_\\"]
TRACKS = ["", "t1", "T1", "track 2"]
KEYS = ["bag", "a.b", "coat", "x-1"]
VALUES = ["red", "1", "true", "", "ünï", "null", '"q"']


async def fill(application, at, count: int = 80, seed: int = 0) -> list[dict]:
    """Crops of every sort; the plain values of each."""
    rng, stored = np.random.default_rng(seed), []
    for number in range(count):
        crop = {
            "camera": f"c{rng.integers(3) + 1}",
            "second": int(rng.integers(40)),
            "zone": ZONES[rng.integers(4)],
            "track": TRACKS[rng.integers(4)],
            "attributes": {key: VALUES[rng.integers(7)] for key in KEYS if rng.random() < 0.4},
        }
        result = await application.ingest.submit(
            IngestItem(
                "",
                crop["camera"],
                at(crop["second"]),
                b"crop %d" % number,
                track_id=crop["track"],
                zone=crop["zone"],
                attributes=crop["attributes"],
            )
        )
        # A crop without a zone of its own is where its camera is.
        stored.append(crop | {"id": result.crop_id, "zone": crop["zone"] or "gate"})
    return stored


def random_filter(rng: np.random.Generator, at) -> CropFilter:
    """A few conditions, so that something is left over more often than not."""

    def some(values: list, most: int) -> list:
        count = rng.integers(1, most + 1)
        return [values[place] for place in rng.integers(len(values), size=count)]

    def terms() -> list[AttributeTerm]:
        keys = sorted({*some([*KEYS, "never"], 2)})
        return [AttributeTerm(key, some(VALUES, 4) if rng.random() < 0.7 else []) for key in keys]

    start = int(rng.integers(-5, 30))
    fields = {
        "include_camera_ids": lambda: some(["c1", "c2", "c3"], 2),
        "exclude_camera_ids": lambda: some(["c1", "c2", "c3"], 1),
        "capture_range": lambda: TimeRange(at(start), at(start + int(rng.integers(1, 30)))),
        "include_zones": lambda: some([*ZONES, "gate", "gat_", "never"], 3),
        "exclude_zones": lambda: some([*ZONES, "gate", "%"], 2),
        "include_track_ids": lambda: some([*TRACKS, "never"], 3),
        "exclude_track_ids": lambda: some([*TRACKS, "t%"], 2),
        "include_attributes": terms,
        "exclude_attributes": terms,
    }
    chosen = [name for name in fields if rng.random() < 0.25]
    return CropFilter(**{name: fields[name]() for name in chosen})


def passes(crop: dict, chosen: CropFilter, at) -> bool:
    def matches(term: AttributeTerm) -> bool:
        value = crop["attributes"].get(term.key)
        return value is not None and (not term.values or value in term.values)

    def among(value: str, include, exclude) -> bool:
        return (not include or value in include) and value not in exclude

    times, when = chosen.capture_range, at(crop["second"])
    return (
        among(crop["camera"], chosen.include_camera_ids, chosen.exclude_camera_ids)
        and among(crop["zone"], chosen.include_zones, chosen.exclude_zones)
        and among(crop["track"], chosen.include_track_ids, chosen.exclude_track_ids)
        and (times.start_time is None or times.start_time <= when < times.end_time)
        and all(matches(term) for term in chosen.include_attributes)
        and not any(matches(term) for term in chosen.exclude_attributes)
    )


def test_search_and_listing_return_exactly_what_passes(opened, run, at) -> None:
    async def check(application, stored: list[dict]) -> None:
        rng, sizes = np.random.default_rng(1), []
        for _ in range(60):
            chosen = random_filter(rng, at)
            expected = {crop["id"] for crop in stored if passes(crop, chosen, at)}
            answer = await application.search.search(
                SearchQuery(image=b"query", top_k=1000, filter=chosen)
            )
            assert {match.crop.crop_id for match in answer.matches} == expected, chosen
            assert answer.rows_scanned == len(expected)
            page = await application.crops.list("", chosen, 1000)
            assert {crop.crop_id for crop in page.items} == expected, chosen
            sizes.append(len(expected))
        assert sizes.count(0) < 40, "filters that leave nothing prove little"

    async def work() -> None:
        async with opened(index={"segment_rows": 16}) as application:
            stored = await fill(application, at)
            await check(application, stored)
            for crop in stored[::3]:
                await application.crops.delete("", str(crop["id"]))
            left = [crop for place, crop in enumerate(stored) if place % 3]
            await check(application, left)
        # From the index files, and from the catalog alone.
        async with opened(cameras=False, index={"segment_rows": 16}) as application:
            await check(application, left)

    run(work())


def test_an_index_built_from_the_catalog_knows_every_field(opened, run, at, tmp_path) -> None:
    async def work() -> None:
        async with opened() as application:
            stored = await fill(application, at, 30)
        for file in (tmp_path / "data" / "index").rglob("*.*"):
            file.unlink()
        async with opened(cameras=False) as application:
            rng = np.random.default_rng(2)
            for _ in range(60):
                chosen = random_filter(rng, at)
                answer = await application.search.search(
                    SearchQuery(image=b"query", top_k=1000, filter=chosen)
                )
                assert {match.crop.crop_id for match in answer.matches} == {
                    crop["id"] for crop in stored if passes(crop, chosen, at)
                }

    run(work())


def test_the_querys_own_camera_is_left_out(opened, run, at) -> None:
    async def check(application, stored: list[dict], within: int | None, by: str) -> None:
        mode = OwnCamera.EXCLUDE if within is None else OwnCamera.EXCLUDE_WITHIN
        window = None if within is None else timedelta(seconds=within)
        for own in stored[:3]:
            seen = Sighting(own["camera"], None if within is None else at(own["second"]))
            query = (
                SearchQuery(crop_id=str(own["id"]), own_camera=OwnCameraRule(mode, window))
                if by == "crop"
                else SearchQuery(image=b"q", own_camera=OwnCameraRule(mode, window, seen))
            )
            answer = await application.search.search(
                SearchQuery(
                    crop_id=query.crop_id,
                    image=query.image,
                    own_camera=query.own_camera,
                    top_k=1000,
                )
            )
            assert {match.crop.crop_id for match in answer.matches} == {
                crop["id"]
                for crop in stored
                if crop["camera"] != own["camera"]
                or (within is not None and abs(crop["second"] - own["second"]) > within)
            }

    async def work() -> None:
        async with opened(index={"segment_rows": 16}) as application:
            stored = await fill(application, at)
            for within in (None, 1, 5, 100):
                for by in ("crop", "image"):
                    await check(application, stored, within, by)

    run(work())


UNKNOWN = UUID(int=5)
WITHIN = OwnCamera.EXCLUDE_WITHIN


REFUSED = [
    ({"filter": CropFilter(include_zones=["x" * 65])}, InvalidArgument, "include_zones"),
    ({"filter": CropFilter(exclude_zones=["a\nb"])}, InvalidArgument, "exclude_zones"),
    ({"filter": CropFilter(exclude_track_ids=["x" * 129])}, InvalidArgument, "exclude_track"),
    (
        {"filter": CropFilter(include_attributes=[AttributeTerm("no key", ["1"])])},
        InvalidArgument,
        "include_attributes.key",
    ),
    (
        {"filter": CropFilter(exclude_attributes=[AttributeTerm("k", ["x" * 257])])},
        InvalidArgument,
        "exclude_attributes.values",
    ),
    (
        {"filter": CropFilter(include_attributes=[AttributeTerm("k", ["1"]), AttributeTerm("k")])},
        InvalidArgument,
        "include_attributes names the key 'k' twice",
    ),
    (
        {"filter": CropFilter(include_zones=["z"] * 4001)},
        InvalidArgument,
        "include_zones has 4001 terms; send at most 1000",
    ),
    (
        {"filter": CropFilter(exclude_attributes=[AttributeTerm("k", ["v"] * 1001)])},
        InvalidArgument,
        "exclude_attributes has 1001 terms",
    ),
    ({"own_camera": OwnCameraRule(OwnCamera.EXCLUDE)}, InvalidArgument, "query_camera_id"),
    (
        {"own_camera": OwnCameraRule(OwnCamera.EXCLUDE, None, Sighting("c9"))},
        NotFound,
        "query_camera_id: camera 'c9'",
    ),
    (
        {"own_camera": OwnCameraRule(WITHIN, timedelta(seconds=1), Sighting("c1"))},
        InvalidArgument,
        "query_capture_time is missing",
    ),
    ({"own_camera": OwnCameraRule(WITHIN)}, InvalidArgument, "own_camera_window"),
    (
        {"own_camera": OwnCameraRule(WITHIN, timedelta(0), Sighting("c1"))},
        InvalidArgument,
        "own_camera_window",
    ),
    (
        {"own_camera": OwnCameraRule(window=timedelta(seconds=1))},
        InvalidArgument,
        "own_camera_window has an effect only",
    ),
    (
        {"own_camera": OwnCameraRule(sighting=Sighting("c1"))},
        InvalidArgument,
        "query_camera_id has an effect only",
    ),
    (
        {
            "image": None,
            "crop_id": str(UNKNOWN),
            "own_camera": OwnCameraRule(OwnCamera.EXCLUDE, None, Sighting("c1")),
        },
        InvalidArgument,
        "query_camera_id has an effect only",
    ),
    (
        {
            "image": None,
            "crop_id": str(UNKNOWN),
            "own_camera": OwnCameraRule(OwnCamera.EXCLUDE),
        },
        NotFound,
        str(UNKNOWN),
    ),
]


def test_refusals_name_the_field(opened, run, embedder) -> None:
    async def work() -> None:
        async with opened() as application:
            for query, error, field in REFUSED:
                with pytest.raises(error, match=field):
                    await application.search.search(SearchQuery(**{"image": b"q", **query}))
            assert embedder.calls == 0, "refused before anything is spent on it"

    run(work())


def test_unknown_words_match_nothing_and_exclude_nothing(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            stored = await fill(application, at, 12)
            for name, values in (
                ("zones", ["never"]),
                ("track_ids", ["never"]),
                ("attributes", [AttributeTerm("never")]),
                ("attributes", [AttributeTerm("bag", ["never"])]),
            ):
                for side, count in (("include", 0), ("exclude", len(stored))):
                    chosen = CropFilter(**{f"{side}_{name}": values})
                    answer = await application.search.search(
                        SearchQuery(image=b"q", top_k=1000, filter=chosen)
                    )
                    assert len(answer.matches) == count
                    assert len((await application.crops.list("", chosen)).items) == count

    run(work())


class Endless(list):
    """A long list that nobody may read."""

    def __len__(self) -> int:
        return 1_000_000

    def __iter__(self):
        raise AssertionError("its items were looked at")

    def __getitem__(self, place):
        raise AssertionError("its items were looked at")


@pytest.mark.parametrize(
    "name",
    ["camera_ids", "zones", "track_ids", "attributes"],
)
@pytest.mark.parametrize("side", ["include", "exclude"])
def test_a_million_terms_are_refused_unread(side, name) -> None:
    chosen = CropFilter(**{f"{side}_{name}": Endless()})
    with pytest.raises(InvalidArgument, match=f"filter.{side}_{name} has 1000000") as caught:
        chosen.checked(max_cameras=1000, max_terms=1000)
    assert caught.value.field == f"filter.{side}_{name}"
    within = CropFilter(**{f"{side}_attributes": [AttributeTerm("k", Endless())]})
    with pytest.raises(InvalidArgument, match="1000000"):
        within.checked(max_cameras=1000, max_terms=1000)
