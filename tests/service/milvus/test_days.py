"""Days and their partitions, against the standard library's calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.milvus import days

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = st.datetimes(datetime(1950, 1, 1), datetime(2150, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


@given(MOMENTS)
def test_a_moment_lies_in_the_partition_of_its_utc_date(moment: datetime) -> None:
    day = int(days.days_of(np.array([micros(moment)]))[0])
    name = days.name_of_day(day)
    assert name == f"d{moment:%Y%m%d}"
    assert days.day_of_name(name) == day


def test_other_partitions_are_not_days() -> None:
    for name in ("_default", "d2026", "x20260101", "d20260101_old"):
        assert days.day_of_name(name) is None


@given(
    st.sets(st.integers(-3, 6)),
    st.none() | st.integers(-3, 12),
    st.none() | st.integers(-3, 12),
)
def test_days_of_a_range_hold_every_row_of_it(
    known: set[int], start: int | None, end: int | None
) -> None:
    """Times are looked at every half day, with the microsecond before and after."""
    half = days.MICROS // 2
    low = None if start is None else start * half
    high = None if end is None else end * half
    chosen = days.overlapping(known, low, high)
    is_whole = days.whole(chosen, low, high)
    for tick in range(-8, 16):
        for time in (tick * half - 1, tick * half, tick * half + 1):
            day = time // days.MICROS
            inside = (low is None or time >= low) and (high is None or time < high)
            if day in known and inside:
                assert day in chosen
            if day in chosen and is_whole:
                assert inside
