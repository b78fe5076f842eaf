"""Crops as messages, against protobuf's own conversions."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from resight.v1.search_service_pb2 import SEARCH_MODE_EXACT_SCAN
from service.domain.crop import Crop
from service.domain.instant import to_micros
from service.domain.query import Match, SearchAnswer, SearchMode
from service.transport.grpc.convert import crop_message
from service.transport.grpc.convert_search import search_response

times = st.datetimes(timezones=st.just(UTC))
crops = st.builds(
    Crop,
    crop_id=st.uuids(),
    camera_id=st.sampled_from(["c1", "north.door"]),
    capture_micros=times.map(to_micros),
    sha256=st.binary(min_size=32, max_size=32),
    track_id=st.sampled_from(["", "t"]),
    zone=st.sampled_from(["", "hall"]),
    attributes=st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy")),
    create_micros=st.none() | times.map(to_micros),
)


def stamp(value: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(value)
    return message


@given(crops)
def test_a_message_says_what_the_crop_says(crop: Crop) -> None:
    message = crop_message(crop)
    assert UUID(message.crop_id) == crop.crop_id
    assert (message.camera_id, message.track_id, message.zone, message.sha256) == (
        crop.camera_id, crop.track_id, crop.zone, crop.sha256,
    )  # fmt: skip
    assert dict(message.attributes) == crop.attributes
    assert message.capture_time == stamp(crop.capture_time)
    assert message.HasField("create_time") == (crop.create_time is not None)
    if crop.create_time is not None:
        assert message.create_time == stamp(crop.create_time)


@given(st.lists(crops, max_size=5))
def test_an_answer_keeps_every_match_in_its_place(found: list[Crop]) -> None:
    matches = [Match(crop, 1 - rank / 8) for rank, crop in enumerate(found)]
    response = search_response(SearchAnswer(matches, "m", SearchMode.EXACT_SCAN, 7, 9))
    assert [match.crop for match in response.matches] == [crop_message(crop) for crop in found]
    assert [match.score for match in response.matches] == [match.score for match in matches]
    assert (response.model_version, response.mode) == ("m", SEARCH_MODE_EXACT_SCAN)
    assert (response.rows_scanned, response.rows_total) == (7, 9)
