"""Travel times that a gallery teaches, through a real service."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from resight.cli import app
from resight.v1 import gallery_service_pb2
from resight.v1 import search_service_pb2 as search_pb2
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e.retrieval_site import DATABASES, START, Site, refused, stamp

pytestmark = DATABASES

PEOPLE = 26
FOLLOWED = 3
# Nobody is that fast, and the camera saw somebody like the person followed.
TOO_FAST = 5


class Ways(NamedTuple):
    """A gallery in which people walk from the hall to the gate, and one look-alike stands there.

    ``seconds`` are those of the walks, by person; ``way`` the crops of the person followed: in the
    hall, of the look-alike, at the gate.
    """

    site: Site
    client: httpx.Client
    gallery: str
    seconds: list[int]
    way: list[str]

    def track(self, **fields: Any) -> search_pb2.TrackPersonResponse:
        query = search_pb2.SearchRequest(
            gallery=self.gallery, image=picture(FOLLOWED), min_score=0.7
        )
        return self.site.connection.search.TrackPerson(
            search_pb2.TrackPersonRequest(query=query, **fields)
        )


def picture(person: int, *, like: float = 1.0) -> bytes:
    """A person, or with a lower ``like`` somebody similar."""
    blocks = np.random.default_rng(9000 + person).integers(0, 230, (8, 4, 3))
    other = np.random.default_rng(1).integers(0, 230, (8, 4, 3))
    mixed = (like * blocks + (1 - like) * other).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mixed).resize((64, 128), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def ways(site: Site, request: pytest.FixtureRequest) -> Iterator[Ways]:
    gallery = "ways-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[:50]
    gallery = gallery.rstrip("-")
    for camera in ("hall", "gate", "yard"):
        site.connection.gallery.CreateCamera(
            gallery_service_pb2.CreateCameraRequest(
                gallery=gallery, camera=Camera(camera_id=camera)
            )
        )
    seconds = [60 + 7 * person % 41 for person in range(PEOPLE)]
    seen: list[tuple[str, datetime, bytes, str]] = []
    for person, walk in enumerate(seconds):
        left = START + timedelta(seconds=200 * person)
        seen += [
            ("hall", left - timedelta(seconds=2), picture(person), f"h{person}"),
            ("hall", left, picture(person), f"h{person}"),
            ("gate", left + timedelta(seconds=walk), picture(person), f"g{person}"),
        ]
    soon = START + timedelta(seconds=200 * FOLLOWED + TOO_FAST)
    seen.append(("gate", soon, picture(FOLLOWED, like=0.75), "ghost"))
    items = [
        gallery_service_pb2.IngestCropsRequest(
            gallery=gallery,
            sequence=number,
            image=image,
            crop=Crop(camera_id=camera, capture_time=stamp(time), track_id=track),
        )
        for number, (camera, time, image, track) in enumerate(seen)
    ]
    ids = {a.sequence: a.crop_id for a in site.connection.gallery.IngestCrops(iter(items))}
    way = [ids[3 * FOLLOWED + 1], ids[len(seen) - 1], ids[3 * FOLLOWED + 2]]
    base = f"http://{site.service.rest}/v1/galleries/{gallery}"
    with httpx.Client(base_url=base, timeout=120) as client:
        yield Ways(site, client, gallery, seconds, way)


def last_crops(answer: search_pb2.TrackPersonResponse) -> list[str]:
    return [visit.sightings[-1].crop.crop_id for visit in answer.visits]


def test_what_was_learned_is_told(ways: Ways) -> None:
    ask = partial(
        ways.site.connection.search.GetTravelTimes,
        search_pb2.GetTravelTimesRequest(gallery=ways.gallery),
    )
    code, _, reason = refused(ask)
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "TRAVEL_TIMES_NOT_LEARNED")
    assert ways.client.get("/travel-times").status_code == 404
    learned = ways.site.connection.search.LearnTravelTimes(
        search_pb2.LearnTravelTimesRequest(gallery=ways.gallery)
    ).travel_times
    (pair,) = learned.pairs
    fast, typical, slow = np.quantile(ways.seconds, (0.05, 0.5, 0.95))
    assert (pair.from_camera_id, pair.to_camera_id, pair.matches) == ("hall", "gate", PEOPLE)
    told = (pair.min_seconds, pair.typical_seconds, pair.max_seconds)
    assert told == pytest.approx((fast / 2, typical, slow * 1.5))
    assert (learned.crops, learned.tracks) == (3 * PEOPLE + 1, 2 * PEOPLE + 1)
    assert learned.lowest_probability == 0.9
    assert learned.model_version == ways.site.service.model
    assert learned.position == 3 * PEOPLE + 1 + 3, "every crop and camera"
    assert ask().travel_times == learned
    body = ways.client.get("/travel-times").json()
    assert body["pairs"] == [
        {"from_camera_id": "hall", "to_camera_id": "gate", "matches": PEOPLE,
         "min_seconds": told[0], "typical_seconds": told[1], "max_seconds": told[2]}
    ]  # fmt: skip
    again = ways.client.post("/travel-times").json()
    assert again["learn_time"] > body["learn_time"]
    assert again["pairs"] == body["pairs"]
    assert ways.client.post("/travel-times/x").status_code == 404
    assert httpx.get(str(ways.client.base_url).replace("ways-", "no-")).status_code == 404


def test_nobody_is_too_fast_for_travel_times_that_are_unknown(ways: Ways) -> None:
    answer = ways.track()
    assert last_crops(answer) == ways.way
    assert not answer.conflicts
    assert not answer.HasField("travel_times_learn_time")
    assert answer.hops[0].kind == search_pb2.Hop.KIND_UNKNOWN
    assert answer.hops[0].seconds == TOO_FAST


def test_an_impossible_hop_is_dropped_and_told_by_travel_times_that_were_learned(
    ways: Ways,
) -> None:
    answer = ways.track(use_learned_travel_times=True)
    assert last_crops(answer) == [ways.way[0], ways.way[2]]
    assert [hop.kind for hop in answer.hops] == [search_pb2.Hop.KIND_PLAUSIBLE]
    assert answer.hops[0].seconds == ways.seconds[FOLLOWED]
    (conflict,) = answer.conflicts
    assert conflict.visit.sightings[0].crop.crop_id == ways.way[1]
    assert (conflict.with_visit, conflict.seconds) == (0, TOO_FAST)
    assert conflict.min_seconds == pytest.approx(np.quantile(ways.seconds, 0.05) / 2)
    assert answer.HasField("travel_times_learn_time")
    body = ways.client.post(
        "/track",
        json={
            "query": {"crop_id": ways.way[0], "min_score": 0.7},
            "use_learned_travel_times": True,
        },
    ).json()
    assert [v["sightings"][-1]["crop"]["crop_id"] for v in body["visits"]] == last_crops(answer)
    assert len(body["conflicts"]) == 1
    assert body["travel_times_learn_time"] is not None


def test_travel_times_that_are_given_come_first(ways: Ways) -> None:
    given = search_pb2.TravelTime(
        from_camera_id="gate", to_camera_id="hall", min_seconds=1, typical_seconds=50,
        max_seconds=60,
    )  # fmt: skip
    answer = ways.track(use_learned_travel_times=True, travel_times=[given])
    assert last_crops(answer) == ways.way, "the way back that is given holds both ways"
    assert not answer.conflicts


def test_the_command_learns_and_uses_them(ways: Ways, tmp_path: Any) -> None:
    at = ("--target", ways.site.service.grpc, "--gallery", ways.gallery)
    early = CliRunner().invoke(app, ["cameras", "travel-times", *at])
    assert early.exit_code == 1
    assert "--learn" in early.stderr
    text = CliRunner().invoke(app, ["cameras", "travel-times", "--learn", *at])
    assert text.exit_code == 0, text.stderr
    assert f"{PEOPLE} matches" in text.stdout
    assert "1 pairs" in text.stdout
    found = json.loads(CliRunner().invoke(app, ["cameras", "travel-times", *at, "--json"]).stdout)
    assert [(pair["from"], pair["to"]) for pair in found["pairs"]] == [("hall", "gate")]
    (tmp_path / "q.png").write_bytes(picture(FOLLOWED))
    done = CliRunner().invoke(
        app,
        ["track", str(tmp_path / "q.png"), "--min-score", "0.7", "--learn-travel-times", *at,
         "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert [visit["camera_id"] for visit in told["visits"]] == ["hall", "gate"]
    assert [visit["crop_ids"] for visit in told["conflicts"]] == [[ways.way[1]]]
    assert told["travel_times_learn_time"] == found["learn_time"]
