"""Capture times for crops whose source knows none: always asked for, never invented silently."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from resight.crops import CropRef
from resight.errors import InvalidArgument

__all__ = ["CaptureTimeSource", "with_capture_times"]

_FRAMES_PER_SECOND = 25
# Frame numbers begin again in each sequence and have at most six digits (11.1 hours).
_SEQUENCE = timedelta(hours=12)
_MARKET_NAME = re.compile(r"-?\d+_c\d+s(\d+)_(\d+)_\d+")


class CaptureTimeSource(StrEnum):
    """Where a missing capture time comes from."""

    MTIME = "mtime"
    FRAME = "frame"


def with_capture_times(
    crops: Iterable[CropRef], *, source: CaptureTimeSource | None, start: datetime | None
) -> list[CropRef]:
    """The crops, each with a capture time; times that are known are kept.

    Args:
        crops: From a source.
        source: ``mtime``: the file's; ``frame``: ``start`` plus the frame of a Market-1501 style
            name at 25 frames a second, sequences 12 hours apart; None: a missing time is an error.
        start: Of the first frame, aware.

    Raises:
        InvalidArgument: A time is missing and cannot be made.
    """
    crops = list(crops)
    missing = [crop for crop in crops if crop.capture_time is None]
    if not missing:
        return crops
    make = _maker(source, start, missing)
    return [
        crop if crop.capture_time is not None else replace(crop, capture_time=make(crop.path))
        for crop in crops
    ]


def _maker(
    source: CaptureTimeSource | None, start: datetime | None, missing: list[CropRef]
) -> Callable[[Path], datetime]:
    if source is CaptureTimeSource.MTIME:
        return lambda path: datetime.fromtimestamp(path.stat().st_mtime, UTC)
    if source is CaptureTimeSource.FRAME:
        if start is None:
            raise InvalidArgument(
                "--capture-time-from frame needs --assume-start, such as 2026-01-01T00:00:00Z",
                field="assume-start",
            )
        return lambda path: _frame_time(path, start)
    raise InvalidArgument(
        f"{len(missing)} crops have no capture time (first: {missing[0].path}); ingest a manifest "
        "with a capture_time column, or say where times come from: --capture-time-from mtime, or "
        "--capture-time-from frame --assume-start 2026-01-01T00:00:00Z",
        field="capture_time",
    )


def _frame_time(path: Path, start: datetime) -> datetime:
    match = _MARKET_NAME.match(path.stem)
    if match is None:
        raise InvalidArgument(
            f"{path}: the name has no frame number as in 0001_c1s1_000151_01.jpg; use "
            "--capture-time-from mtime, or a manifest",
            field="capture-time-from",
        )
    sequence, frame = int(match[1]), int(match[2])
    return start + (sequence - 1) * _SEQUENCE + timedelta(seconds=frame / _FRAMES_PER_SECOND)
