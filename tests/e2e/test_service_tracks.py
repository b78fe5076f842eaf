"""A person's way, through a real service."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from resight.cli import app
from resight.v1 import search_service_pb2 as search_pb2
from service.domain.crop import Crop as DomainCrop
from service.domain.instant import to_micros
from service.domain.query import Match
from service.domain.trajectory import TravelTime, checked_travel_times
from service.retrieval.trajectory import best_way, visits
from tests.e2e.retrieval_site import (
    CAMERAS,
    CROPS,
    DATABASES,
    INTERCEPT,
    SLOPE,
    START,
    Site,
    refused,
)

pytestmark = DATABASES


def way(site: Site, threshold: float, least: dict[tuple[str, str], int]) -> TrackAnswerParts:
    """The visits of crop 0's person, from the vectors themselves."""
    scores = site.vectors @ site.vectors[0]
    matches = [
        Match(
            DomainCrop(
                UUID(site.ids[n]),
                CAMERAS[n % 4],
                to_micros(START + timedelta(minutes=n)),
                b"",
                "" if n % 7 == 0 else f"t{n // 8}",
            ),
            float(scores[n]),
            float(1 / (1 + math.exp(-(SLOPE * scores[n] + INTERCEPT)))),
        )
        for n in range(CROPS)
        if scores[n] >= threshold
    ]
    table = checked_travel_times(
        [TravelTime(a, b, low, low + 60, low + 600) for (a, b), low in least.items()], limit=10
    )
    ordered = visits(matches, 60)
    return TrackAnswerParts(
        [[str(m.crop.crop_id) for m in ordered[n].sightings] for n in best_way(ordered, table)],
        len(ordered),
    )


class TrackAnswerParts(NamedTuple):
    """Crop ids by visit, and how many visits there were before any was left out."""

    visits: list[list[str]]
    before: int


@pytest.mark.parametrize("least", [{}, {("hall", "gate"): 300, ("gate", "yard"): 200}])
def test_the_way_of_a_person(site: Site, least: dict[tuple[str, str], int]) -> None:
    threshold = float(np.sort(site.vectors @ site.vectors[0])[-25])
    expected = way(site, threshold - 1e-5, least)
    times: list[dict[str, Any]] = [
        {"from_camera_id": a, "to_camera_id": b, "min_seconds": low,
         "typical_seconds": low + 60, "max_seconds": low + 600}
        for (a, b), low in least.items()
    ]  # fmt: skip
    request = search_pb2.TrackPersonRequest(
        query=search_pb2.SearchRequest(
            gallery="site", crop_id=site.ids[0], min_score=threshold - 1e-5
        ),
        travel_times=[search_pb2.TravelTime(**time) for time in times],
    )
    answer = site.connection.search.TrackPerson(request)
    found = [[match.crop.crop_id for match in visit.sightings] for visit in answer.visits]
    assert found == expected.visits
    assert any(site.ids[0] in visit for visit in found), "the query is a sighting"
    assert len(answer.hops) == len(found) - 1
    assert len(answer.conflicts) == expected.before - len(found)
    assert bool(answer.conflicts) == bool(least)
    for hop, one, other in zip(answer.hops, answer.visits, answer.visits[1:], strict=False):
        assert hop.seconds == other.start_time.seconds - one.end_time.seconds
        known = {(a, b) for a, b in least} | {(b, a) for a, b in least}
        pair = (one.camera_id, other.camera_id)
        unknown = pair not in known and pair[0] != pair[1]
        assert (hop.kind == search_pb2.Hop.KIND_UNKNOWN) == unknown
    body = site.rest(
        "/track",
        query={"crop_id": site.ids[0], "min_score": threshold - 1e-5},
        travel_times=times,
    )
    told = [[m["crop"]["crop_id"] for m in visit["sightings"]] for visit in body["visits"]]
    assert told == found
    assert [hop["seconds"] for hop in body["hops"]] == [hop.seconds for hop in answer.hops]
    assert len(body["conflicts"]) == len(answer.conflicts)
    assert (body["truncated"], answer.truncated, body["rows_total"]) == (False, False, CROPS)


def test_a_way_that_is_cut_short_says_so(site: Site) -> None:
    body = site.rest("/track", query={"crop_id": site.ids[0], "min_score": -1.0, "top_k": 7})
    assert body["truncated"]
    assert sum(len(visit["sightings"]) for visit in body["visits"]) == 7


def test_bad_tracks_are_named(site: Site) -> None:
    query = {"crop_id": site.ids[0], "min_score": 0.5}
    time = {"from_camera_id": "hall", "to_camera_id": "gate", "min_seconds": 1,
            "typical_seconds": 2, "max_seconds": 3}  # fmt: skip
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"query": {"crop_id": site.ids[0]}}, 400, "min_score"),
        ({"query": query | {"page_token": "x"}}, 400, "page_token"),
        ({"query": query | {"group_by": "camera"}}, 400, "group_by"),
        ({"query": query | {"rerank": {}}}, 400, "rerank"),
        ({"query": query | {"crop_id": "x"}}, 400, "crop_id"),
        ({"query": query, "visit_gap_seconds": -1}, 400, "visit_gap_seconds"),
        ({"query": query, "travel_times": [time, time]}, 400, "travel_times[1]"),
        ({"query": query, "travel_times": [time | {"min_seconds": 9}]}, 400, "travel_times[0]"),
        (
            {"query": query, "travel_times": [time | {"to_camera_id": "cellar"}]},
            404,
            "travel_times[0].to_camera_id",
        ),
    ]
    for body, status, field in cases:
        answer = site.client.post("/track", json=body)
        assert (answer.status_code, answer.json()["field"]) == (status, field), body
    found = refused(partial(site.connection.search.TrackPerson, search_pb2.TrackPersonRequest()))
    assert found[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_the_command_prints_the_way(site: Site, tmp_path: Path) -> None:
    (tmp_path / "q.jpg").write_bytes(site.image(3000))
    (tmp_path / "site.csv").write_text(
        "from,to,min_seconds,typical_seconds,max_seconds\nhall,gate,300,400,500\n"
    )
    command = [
        "track", str(tmp_path / "q.jpg"), "--min-score", "-1", "--target", site.service.grpc,
        "--gallery", "site", "--travel-times", str(tmp_path / "site.csv"), "--until",
        "2026-05-01T00:03:00Z",
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [visit["camera_id"] for visit in found["visits"]] == ["hall", "yard"]
    assert [visit["camera_id"] for visit in found["conflicts"]] == ["gate"]
    assert found["visits"][0]["crop_ids"] == [site.ids[0]]
    text = CliRunner().invoke(app, command).stdout
    assert "left out: gate" in text
    assert "120 s, unknown" in text
    for wrong in ("from,to\n", "from,to,min_seconds,typical_seconds,max_seconds\na,b,1,x,3\n"):
        (tmp_path / "site.csv").write_text(wrong)
        bad = CliRunner().invoke(app, command)
        assert (bad.exit_code, "site.csv" in bad.stderr) == (1, True)
