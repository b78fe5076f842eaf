"""Days of UTC, one partition each, so that retention drops partitions and a time filter names them.

A name is the date: ``d20261121``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

import numpy as np
from numpy.typing import NDArray

__all__ = ["MICROS", "day_of_name", "days_of", "name_of_day", "overlapping", "whole"]

MICROS = 86_400_000_000

_EPOCH = date(1970, 1, 1).toordinal()
_NAME = re.compile(r"d(\d{4})(\d{2})(\d{2})", re.ASCII)


def days_of(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """The day of each time, counted from 1970-01-01; microseconds in, (N,) out."""
    return np.floor_divide(times, MICROS)


def name_of_day(day: int) -> str:
    """The partition of a day.

    Raises:
        ValueError: before the year 1 or after 9999.
    """
    made = date.fromordinal(_EPOCH + day)
    return f"d{made.year:04d}{made.month:02d}{made.day:02d}"


def day_of_name(name: str) -> int | None:
    """The day of a partition; None when it is not one of ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    year, month, day = map(int, found.groups())
    return date(year, month, day).toordinal() - _EPOCH


def overlapping(days: Iterable[int], start: int | None, end: int | None) -> list[int]:
    """Those of the days that ``start <= time < end`` touches, ascending."""
    return sorted(
        day
        for day in days
        if (start is None or (day + 1) * MICROS > start) and (end is None or day * MICROS < end)
    )


def whole(days: Iterable[int], start: int | None, end: int | None) -> bool:
    """Whether every instant of every one of these days lies within ``start <= time < end``."""
    return all(
        (start is None or start <= day * MICROS) and (end is None or end >= (day + 1) * MICROS)
        for day in days
    )
