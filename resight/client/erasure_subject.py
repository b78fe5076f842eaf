"""The subject that options of ``resight erase plan`` name."""

from __future__ import annotations

from pathlib import Path

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.options import instant
from resight.crops import read_crop
from resight.v1 import admin_service_pb2 as messages
from resight.v1.types_pb2 import CropFilter, TimeRange

__all__ = ["subject_of"]


def subject_of(
    *,
    crop: list[str] | None,
    track: str | None,
    camera: list[str] | None,
    start: str | None,
    end: str | None,
    like: Path | None,
    like_crop: str | None,
    min_probability: float | None,
    min_score: float | None,
    max_crops: int,
) -> messages.ErasureSubject:
    """The one subject of these options; an image is read from its file.

    Raises:
        BadParameter: they name none, more than one, or what their subject does not take; or a time
            is none.
        UndecodableImage, ImageTooLarge: the image cannot be read.
    """
    subject = messages.ErasureSubject()
    times = [_timestamp(start, "--start"), _timestamp(end, "--end")]
    spans = TimeRange(start_time=times[0], end_time=times[1])
    if like is not None or like_crop is not None:
        subject.likeness.CopyFrom(
            messages.LikenessSubject(
                min_probability=min_probability,
                min_score=min_score,
                max_crops=max_crops,
                filter=CropFilter(include_camera_ids=camera or (), capture_range=spans),
            )
        )
        if like is not None:
            subject.likeness.image = read_crop(like)
        else:
            subject.likeness.crop_id = str(like_crop)
    elif crop:
        subject.crops.crop_ids.extend(crop)
    elif track is not None:
        subject.track.track_id = track
        subject.track.camera_id = _only(camera)
    elif start is not None or end is not None:
        subject.span.CopyFrom(
            messages.SpanSubject(start_time=times[0], end_time=times[1], camera_ids=camera or ())
        )
    elif camera:
        subject.camera_id = _only(camera)
    _refuse_mixed(crop, track, like, like_crop, start, end, camera)
    return subject


def _only(cameras: list[str] | None) -> str:
    if cameras and len(cameras) > 1:
        raise typer.BadParameter("name one camera here", param_hint="--camera")
    return cameras[0] if cameras else ""


def _refuse_mixed(
    crop: list[str] | None,
    track: str | None,
    like: Path | None,
    like_crop: str | None,
    start: str | None,
    end: str | None,
    camera: list[str] | None,
) -> None:
    """What one subject does not take must not be passed over: another list would be erased."""
    bounds = start is not None or end is not None
    likeness = (like is not None) + (like_crop is not None)
    subjects = likeness + bool(crop) + (track is not None)
    if subjects > 1 or (crop and (camera or bounds)) or (track is not None and bounds):
        raise typer.BadParameter(
            "name one of --crop, --track, --like and --like-crop; --camera goes with all but "
            "--crop, --start and --end with --like and --like-crop"
        )
    if not (subjects or bounds or camera):
        raise typer.BadParameter("name what is to go: --crop, --track, --camera, --start, --like")


def _timestamp(text: str | None, option: str) -> Timestamp | None:
    value = instant(text, option)
    if value is None:
        return None
    message = Timestamp()
    message.FromDatetime(value)
    return message
