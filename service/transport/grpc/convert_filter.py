"""Filters and the own-camera switch of resight.v1 as the domain's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from resight.errors import InvalidArgument
from resight.v1 import search_service_pb2, types_pb2
from service.domain.crop import AttributeTerm, CropFilter, TimeRange
from service.domain.own_camera import OwnCamera, OwnCameraRule, Sighting
from service.transport.grpc.convert_time import duration, instant

__all__ = ["crop_filter", "own_camera_rule"]

_OWN_CAMERA = {
    search_service_pb2.OWN_CAMERA_UNSPECIFIED: OwnCamera.ANY,
    search_service_pb2.OWN_CAMERA_ANY: OwnCamera.ANY,
    search_service_pb2.OWN_CAMERA_EXCLUDE: OwnCamera.EXCLUDE,
    search_service_pb2.OWN_CAMERA_EXCLUDE_WITHIN: OwnCamera.EXCLUDE_WITHIN,
}


def crop_filter(message: types_pb2.CropFilter) -> CropFilter:
    """The filter, not yet checked."""
    times = message.capture_range
    # Lists stay the message's own: they are counted before anything is made of their items.
    return CropFilter(
        include_camera_ids=message.include_camera_ids,
        exclude_camera_ids=message.exclude_camera_ids,
        capture_range=TimeRange(
            start_time=instant(times.start_time, field="filter.capture_range.start_time")
            if times.HasField("start_time")
            else None,
            end_time=instant(times.end_time, field="filter.capture_range.end_time")
            if times.HasField("end_time")
            else None,
        ),
        include_zones=message.include_zones,
        exclude_zones=message.exclude_zones,
        include_track_ids=message.include_track_ids,
        exclude_track_ids=message.exclude_track_ids,
        include_attributes=_AttributeTerms(message.include_attributes),
        exclude_attributes=_AttributeTerms(message.exclude_attributes),
    )


class _AttributeTerms(Sequence[AttributeTerm]):
    """Terms made when they are read."""

    def __init__(self, messages: Sequence[types_pb2.AttributeTerm]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    @overload
    def __getitem__(self, place: int) -> AttributeTerm: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[AttributeTerm]: ...
    def __getitem__(self, place: int | slice) -> AttributeTerm | Sequence[AttributeTerm]:
        if isinstance(place, slice):
            return _AttributeTerms(self._messages[place])
        message = self._messages[place]
        return AttributeTerm(message.key, message.values)


def own_camera_rule(request: search_service_pb2.SearchRequest) -> OwnCameraRule:
    """The switch and what it is about, not yet checked.

    Raises:
        InvalidArgument: a value of the switch that this version does not know; a bad time.
    """
    if request.own_camera not in _OWN_CAMERA:
        raise InvalidArgument(
            f"own_camera {request.own_camera} is unknown to this version; send ANY, EXCLUDE or "
            "EXCLUDE_WITHIN",
            field="own_camera",
        )
    return OwnCameraRule(
        _OWN_CAMERA[request.own_camera],
        duration(request.own_camera_window, field="own_camera_window")
        if request.HasField("own_camera_window")
        else None,
        Sighting(
            request.query_camera_id,
            instant(request.query_capture_time, field="query_capture_time")
            if request.HasField("query_capture_time")
            else None,
        ),
    )
