"""Somebody limited to cameras and a time: every call against brute force over what they may see."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from resight.errors import InvalidArgument, NotFound, PermissionDenied
from service import call
from service.application.ingest import IngestItem, Outcome
from service.call import Call
from service.domain.crop import Camera, CropFilter, TimeRange
from service.domain.examples import Example
from service.domain.groups import GroupBy
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting
from service.domain.principal import EVERYTHING, LOCAL, Principal
from service.domain.query import SearchQuery
from service.domain.trajectory import TrackQuery, TravelTime

COUNT = 60


def limited(at: Any, *, cameras: Any = ("c1", "c3", "unknown"), seconds: Any = (10, 45)) -> Any:
    times = TimeRange(*(None if second is None else at(second) for second in seconds))
    return Principal(
        "key:limited",
        "key",
        EVERYTHING,
        cameras=None if cameras is None else frozenset(cameras),
        capture_range=times,
    )


def become(principal: Principal) -> None:
    call.begin(Call("grpc", "Test/Test", principal=principal))


async def fill(application: Any, at: Any) -> list[dict[str, Any]]:
    rng, stored = np.random.default_rng(3), []
    for number in range(COUNT):
        crop = {"camera": f"c{rng.integers(3) + 1}", "second": number, "image": b"crop %d" % number}
        item = IngestItem("", crop["camera"], at(number), crop["image"], track_id=f"t{number % 9}")
        result = await application.ingest.submit(item)
        assert result.outcome is Outcome.ACCEPTED
        stored.append(crop | {"id": result.crop_id})
    return stored


def seen(stored: list[dict[str, Any]], principal: Any, at: Any) -> list[dict[str, Any]]:
    """Written out anew: which crops they may see."""
    start, end = principal.capture_range.start_time, principal.capture_range.end_time
    return [
        crop
        for crop in stored
        if (principal.cameras is None or crop["camera"] in principal.cameras)
        and (start is None or at(crop["second"]) >= start)
        and (end is None or at(crop["second"]) < end)
    ]


def ranked(crops: list[dict[str, Any]], query: np.ndarray, vectors: Any) -> list[UUID]:
    """Best first by the product of the vectors, ties by id: a literal loop."""
    scored = [(-np.float32(np.float64(vectors(c["image"])) @ query), c["id"]) for c in crops]
    return [crop_id for _, crop_id in sorted(scored)]


@pytest.fixture
def filled(
    opened: Callable[..., Any], at: Any, run: Callable[[Awaitable[Any]], Any]
) -> Callable[[Any], None]:
    """``filled(work)``: run ``work(application, stored)``."""

    def inside(work: Any) -> None:
        async def whole() -> None:
            async with opened() as application:
                await work(application, await fill(application, at))
                become(LOCAL)

        run(whole())

    return inside


@pytest.mark.parametrize(
    ("cameras", "seconds"),
    [
        (("c1", "c3", "unknown"), (10, 45)),
        (("c2",), (None, None)),
        (None, (30, None)),
        (None, (None, 7)),
        (("unknown",), (None, None)),
    ],
)
def test_searches_and_lists_equal_brute_force(
    filled: Any, at: Any, vectors: Any, cameras: Any, seconds: Any
) -> None:
    principal = limited(at, cameras=cameras, seconds=seconds)

    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(principal)
        visible = seen(stored, principal, at)
        query = np.float64(vectors(b"somebody"))
        best = ranked(visible, query, vectors)

        async def found(**asked: Any) -> list[UUID]:
            answer = await application.search.search(SearchQuery("", image=b"somebody", **asked))
            # Nothing tells how many there are besides.
            assert answer.rows_total == answer.rows_scanned == len(visible)
            return [match.crop.crop_id for match in answer.matches]

        assert await found(top_k=COUNT) == best
        assert await found(top_k=5) == best[:5]
        paged, token = [], ""
        while True:
            answer = await application.search.search(
                SearchQuery("", image=b"somebody", top_k=4, page_token=token)
            )
            paged += [match.crop.crop_id for match in answer.matches]
            token = answer.next_page_token
            if not token:
                break
        assert paged == best
        answers = await application.search_batch.search(
            [SearchQuery("", image=b"somebody", top_k=9), SearchQuery("", image=b"else", top_k=9)]
        )
        assert [match.crop.crop_id for match in answers[0].matches] == best[:9]
        groups = await application.search.search(
            SearchQuery("", image=b"somebody", top_k=9, group_by=GroupBy.CAMERA, group_size=COUNT)
        )
        grouped = {m.crop.crop_id for group in groups.groups for m in group}
        assert grouped == set(best)
        listed, token = [], ""
        while True:
            page = await application.crops.list("", None, 7, token)
            listed += [crop.crop_id for crop in page.items]
            token = page.next_page_token
            if not token:
                break
        assert listed == [crop["id"] for crop in visible]
        stats = await application.crops.stats("")
        assert (stats.crops, stats.searchable) == (len(visible), len(visible))
        assert stats.oldest_capture_time == (at(visible[0]["second"]) if visible else None)
        assert stats.newest_capture_time == (at(visible[-1]["second"]) if visible else None)
        names = {"c1", "c2", "c3"} & (set(cameras) if cameras else {"c1", "c2", "c3"})
        assert stats.cameras == len(names)
        page = await application.cameras.list("")
        assert {camera.camera_id for camera in page.items} == names
        if visible:
            track = await application.track_person.track(
                TrackQuery(SearchQuery("", image=b"somebody", min_score=-1.0, top_k=COUNT))
            )
            assert track.found.rows_total <= len(visible)
            sightings = {m.crop.crop_id for visit in track.visits for m in visit.sightings}
            assert sightings <= set(best)

    filled(work)


def test_what_is_out_of_sight_does_not_exist(filled: Any, at: Any) -> None:
    principal = limited(at)

    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(principal)
        visible = {crop["id"] for crop in seen(stored, principal, at)}
        for crop in stored:
            crop_id = str(crop["id"])
            if crop["id"] in visible:
                assert (await application.crops.get("", crop_id, True)).image == crop["image"]
                await application.search.search(SearchQuery("", crop_id=crop_id))
                continue
            unknown = str(uuid4())
            for ask in (
                lambda each: application.crops.get("", each),
                lambda each: application.crops.get("", each, True),
                lambda each: application.crops.delete("", each),
                lambda each: application.search.search(SearchQuery("", crop_id=each)),
                lambda each: application.search.search(
                    SearchQuery("", positives=(Example(crop_id=each),))
                ),
                lambda each: application.search.search(
                    SearchQuery("", image=b"x", negatives=(Example(crop_id=each),))
                ),
            ):
                with pytest.raises(NotFound) as hidden:
                    await ask(crop_id)
                with pytest.raises(NotFound) as absent:
                    await ask(unknown)
                # Word for word what an id that nobody has is told.
                assert hidden.value.reason == absent.value.reason
                assert hidden.value.message.replace(crop_id, "") == absent.value.message.replace(
                    unknown, ""
                )
        become(LOCAL)
        assert (await application.crops.stats("")).crops == COUNT

    filled(work)


def test_naming_what_is_not_theirs_is_refused(filled: Any, at: Any) -> None:
    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(limited(at))
        for chosen, reason in (
            (CropFilter(include_camera_ids=("c1", "c2")), "CAMERA_NOT_ALLOWED"),
            (CropFilter(include_camera_ids=("never",)), "CAMERA_NOT_ALLOWED"),
            (CropFilter(exclude_camera_ids=("c2",)), "CAMERA_NOT_ALLOWED"),
            (CropFilter(capture_range=TimeRange(at(50), at(60))), "TIME_NOT_ALLOWED"),
        ):
            with pytest.raises(PermissionDenied) as refused:
                await application.crops.list("", chosen)
            assert refused.value.reason == reason
            with pytest.raises(PermissionDenied):
                await application.search.search(SearchQuery("", image=b"x", filter=chosen))
        own = OwnCameraRule(OwnCamera.EXCLUDE, None, Sighting("c2", at(20)))
        with pytest.raises(PermissionDenied):
            await application.search.search(SearchQuery("", image=b"x", own_camera=own))
        between = TravelTime("c1", "c2", 1, 2, 3)
        query = SearchQuery("", image=b"x", min_score=0.0)
        with pytest.raises(PermissionDenied):
            await application.track_person.track(TrackQuery(query, travel_times=(between,)))
        with pytest.raises(PermissionDenied):
            await application.cameras.create("", Camera("c4"))
        become(replace(limited(at), galleries=frozenset({"other"})))
        with pytest.raises(PermissionDenied):
            await application.cameras.create("new", Camera("c1"))
        become(LOCAL)
        with pytest.raises(NotFound):
            await application.crops.list("new")

    filled(work)


def test_a_narrower_filter_stays_narrower(filled: Any, at: Any) -> None:
    principal = limited(at)

    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(principal)
        for low, high in ((0, 20), (20, 30), (40, 99)):
            chosen = CropFilter(("c1",), capture_range=TimeRange(at(low), at(high)))
            page = await application.crops.list("", chosen, 1000)
            assert [crop.crop_id for crop in page.items] == [
                crop["id"]
                for crop in seen(stored, principal, at)
                if crop["camera"] == "c1" and low <= crop["second"] < high
            ]

    filled(work)


def test_a_page_token_shows_nobody_more(filled: Any, at: Any) -> None:
    principal = limited(at)

    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(LOCAL)
        wide = await application.crops.list("", None, 3)
        answer = await application.search.search(SearchQuery("", image=b"who", top_k=3))
        become(principal)
        with pytest.raises(InvalidArgument):
            await application.crops.list("", None, 3, wide.next_page_token)
        query = SearchQuery("", image=b"who", top_k=3, page_token=answer.next_page_token)
        with pytest.raises(InvalidArgument):
            await application.search.search(query)

    filled(work)


def test_only_their_own_is_taken_in(filled: Any, at: Any) -> None:
    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(limited(at))
        for camera, second, reason in (
            ("c1", 20.5, ""),
            ("c2", 20.5, "CAMERA_NOT_ALLOWED"),
            ("never", 20.5, "CAMERA_NOT_ALLOWED"),
            ("c1", 45, "TIME_NOT_ALLOWED"),
            ("c1", 9.5, "TIME_NOT_ALLOWED"),
            ("unknown", 20.5, "CAMERA_NOT_REGISTERED"),
        ):
            image = f"{camera} {second}".encode()
            result = await application.ingest.submit(IngestItem("", camera, at(second), image))
            assert result.reason == reason
            assert (result.outcome is Outcome.ACCEPTED) == (not reason)
        become(Principal("key:x", "key", EVERYTHING, galleries=frozenset({"other"})))
        result = await application.ingest.submit(IngestItem("", "c1", at(1.5), b"x"))
        assert (result.outcome, result.reason) == (Outcome.REJECTED, "GALLERY_NOT_ALLOWED")

    filled(work)


def test_a_taken_id_is_refused_alike_wherever_it_lies(filled: Any, at: Any) -> None:
    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(limited(at))
        own = {crop["id"] for crop in seen(stored, limited(at), at)}
        answers: dict[bool, set[tuple[str, ...]]] = {True: set(), False: set()}
        for crop in stored:
            asked = IngestItem("", "c1", at(20.5), b"another", crop_id=str(crop["id"]))
            told = await application.ingest.submit(asked)
            assert told.outcome is Outcome.REJECTED
            said = told.message.replace(str(crop["id"]), "ID")
            answers[crop["id"] in own].add((told.reason, said, told.field, str(told.crop_id)))
        assert len(answers[True]) == 1
        assert answers[True] == answers[False]
        # A repeated crop of their own is still known.
        [one, *_] = (crop for crop in stored if crop["id"] in own)
        track = f"t{one['second'] % 9}"
        asked = IngestItem("", one["camera"], at(one["second"]), one["image"], track_id=track)
        for crop_id in ("", str(one["id"])):
            told = await application.ingest.submit(replace(asked, crop_id=crop_id))
            assert (told.outcome, told.crop_id) == (Outcome.DUPLICATE, one["id"])

    filled(work)


def test_learned_travel_times_are_of_their_cameras(filled: Any, at: Any) -> None:
    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(LOCAL)
        for person in range(30):
            # The same image before each camera: most like each other beyond doubt.
            for place, camera in enumerate(("c1", "c2", "c3")):
                seconds, track = 1000.0 + 40 * person + 4 * place, f"p{person} {camera}"
                image = b"person %d" % person
                await application.ingest.submit(
                    IngestItem("", camera, at(seconds), image, track_id=track)
                )
        whole = await application.travel_times.learn("")
        kept = [p for p in whole.pairs if {p.from_camera_id, p.to_camera_id} <= {"c1", "c2"}]
        assert 0 < len(kept) < len(whole.pairs)
        become(limited(at, cameras=("c1", "c2"), seconds=(None, None)))
        for table in (
            application.travel_times.get(""),
            await application.travel_times.learn(""),
            await application.travel_times.recent(""),
        ):
            assert list(table.pairs) == kept
            assert (table.position, table.crops, table.tracks) == (0, 0, 0)
        become(limited(at, cameras=None, seconds=(10, 45)))
        timed = application.travel_times.get("")
        assert [pair.time for pair in timed.pairs] == [pair.time for pair in whole.pairs]
        assert {pair.matches for pair in timed.pairs} == {0}
        assert (timed.position, timed.crops, timed.tracks) == (0, 0, 0)

    filled(work)


def test_counts_of_the_whole_gallery_are_the_unlimited_s(filled: Any, at: Any) -> None:
    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        become(LOCAL)
        whole = await application.search.search(SearchQuery("", image=b"who", top_k=3))
        assert (whole.rows_total, whole.rows_scanned) == (COUNT, COUNT)
        chosen = CropFilter(("c1",))
        part = await application.search.search(SearchQuery("", image=b"who", filter=chosen))
        assert part.rows_scanned < part.rows_total == COUNT
        become(limited(at, cameras=("c1", "c2"), seconds=(None, None)))
        part = await application.search.search(SearchQuery("", image=b"who", filter=chosen))
        mine = sum(crop["camera"] == "c1" for crop in stored)
        assert part.rows_total == part.rows_scanned == mine
        first = await application.search.search(SearchQuery("", image=b"who", top_k=2))
        query = SearchQuery("", image=b"who", top_k=2, page_token=first.next_page_token)
        theirs = sum(crop["camera"] in ("c1", "c2") for crop in stored)
        assert (await application.search.search(query)).rows_total <= theirs

    filled(work)


def test_each_query_of_a_batch_counts(filled: Any, at: Any) -> None:
    async def work(application: Any, stored: list[dict[str, Any]]) -> None:
        charged: list[int] = []
        call.begin(Call("grpc", "Test/Test", principal=LOCAL, charge=charged.append))
        await application.search_batch.search([SearchQuery("", image=b"x")] * 5)
        assert charged == [4]

    filled(work)
