"""Times, identifiers, names and page tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.errors import InvalidArgument
from service.domain.identifier import image_key, image_of_key, uuid7
from service.domain.instant import CaptureTimeRule, from_micros, to_micros
from service.domain.names import crop_id, gallery_name
from service.domain.page import decode_token, encode_token, page_size

NOW = datetime(2026, 6, 1, tzinfo=UTC)
RULE = CaptureTimeRule(datetime(1990, 1, 1, tzinfo=UTC), timedelta(days=1))


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_microseconds_are_exact(value: datetime) -> None:
    micros = to_micros(value)
    assert isinstance(micros, int)
    # In UTC: between zones, Python calls a time that a clock shows twice equal to nothing.
    assert from_micros(micros) == value.astimezone(UTC)


def test_capture_times_become_utc() -> None:
    local = datetime(2026, 1, 1, 13, 0, tzinfo=timezone(timedelta(hours=1)))
    checked = RULE.check(local, now=NOW, field="t")
    assert (checked, checked.utcoffset()) == (local, timedelta(0))


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        (datetime(1990, 1, 1, tzinfo=UTC), True),
        (datetime(1990, 1, 1, tzinfo=UTC) - timedelta(microseconds=1), False),
        (NOW + timedelta(days=1), True),
        (NOW + timedelta(days=1, microseconds=1), False),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))), False),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=5))), False),
        (None, False),
    ],
)
def test_bounds_of_capture_times(value: datetime | None, fine: bool) -> None:
    if fine:
        assert RULE.check(value, now=NOW, field="t") == value
    else:
        with pytest.raises(InvalidArgument, match="t "):
            RULE.check(value, now=NOW, field="t")


@given(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_uuid7_carries_version_variant_and_time(now: datetime) -> None:
    made = uuid7(now)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == to_micros(now) // 1000


def test_uuid7_differs_within_a_millisecond() -> None:
    assert len({uuid7(NOW) for _ in range(1000)}) == 1000


@given(st.uuids())
def test_image_keys_lead_back(blob_id: UUID) -> None:
    assert image_of_key(image_key("a.b", blob_id)) == blob_id


@pytest.mark.parametrize(
    "key", ["", "a", "a/b/c", "g/00/" + "f" * 32, "g/ff/" + "F" * 32, "../../x"]
)
def test_other_keys_are_not_ours(key: str) -> None:
    assert image_of_key(key) is None


@pytest.mark.parametrize("name", [".", "..", "-a", "a/b", "A", "a" * 64, "a b", "ä", "a\n"])
def test_gallery_names_are_safe_folder_names(name: str) -> None:
    with pytest.raises(InvalidArgument, match="gallery"):
        gallery_name(name)


def test_the_default_gallery_and_fair_names() -> None:
    assert gallery_name("") == "default"
    assert gallery_name("site-7.b_c") == "site-7.b_c"


@pytest.mark.parametrize("text", ["{}", "urn:uuid:", "", "g" * 32, "0" * 31, "0" * 33])
def test_crop_ids_are_plain_uuids(text: str) -> None:
    with pytest.raises(InvalidArgument, match="UUID"):
        crop_id(text.replace("{}", "{" + str(uuid4()) + "}"))


@given(st.uuids().filter(lambda value: value.int != 0))
def test_crop_ids_in_either_form(value: UUID) -> None:
    assert crop_id(str(value)) == crop_id(value.hex) == crop_id(str(value).upper()) == value


@given(st.text(max_size=40), st.integers(-(2**55), 2**57), st.text())
def test_tokens_return_what_was_put_in(text: str, number: int, listing: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    listing = listing.encode("utf-8", "replace").decode()
    token = encode_token([text, number], listing=listing)
    assert decode_token(token, listing=listing, shape=(str, int)) == [text, number]


@pytest.mark.parametrize("position", [[], ["a"], [True], [1.0], [2**63], [[1]], [1, 1], [None]])
def test_a_position_of_another_shape_is_no_token(position: Any) -> None:
    """Whoever knows how tokens are made can make one of anything."""
    with pytest.raises(InvalidArgument, match="page_token"):
        decode_token(encode_token(position, listing="crops"), listing="crops")


@given(st.text(min_size=1, max_size=60))
def test_any_other_text_is_no_token(text: str) -> None:
    with pytest.raises(InvalidArgument, match="page_token"):
        decode_token(text, listing="crops")


def test_page_sizes() -> None:
    assert page_size(0, limit=1000) == 100
    assert page_size(0, limit=50) == 50
    assert page_size(1000, limit=1000) == 1000
