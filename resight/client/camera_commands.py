"""``resight cameras``: register and list the cameras of a running service, and the ways between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.options import AsJson, Gallery, Target
from resight.console import emit
from resight.v1.admin_service_pb2 import UpdateCameraRetentionRequest
from resight.v1.gallery_service_pb2 import CreateCameraRequest, ListCamerasRequest
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.search_service_pb2 import (
    GetTravelTimesRequest,
    LearnedTravelTime,
    LearnTravelTimesRequest,
)
from resight.v1.types_pb2 import Camera

__all__ = ["app"]

app = typer.Typer(help="Register and list cameras.", no_args_is_help=True)


@app.command("list")
def list_(
    target: Target = DEFAULT_TARGET, gallery: Gallery = "default", as_json: AsJson = False
) -> None:
    """Print every camera of a gallery, by id."""
    with connect(target) as connection:
        cameras = [_shown(camera) for camera in _all(connection.gallery, gallery)]
    lines = [_camera_line(camera) for camera in cameras]
    emit({"cameras": cameras}, as_json=as_json, text="\n".join(lines) or "no cameras")


@app.command()
def add(
    camera_id: Annotated[str, typer.Argument(help="1 to 64 of [A-Za-z0-9._-].")],
    name: Annotated[str, typer.Option(help="What people call it.")] = "",
    zone: Annotated[str, typer.Option(help="The zone it looks at.")] = "",
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Register a camera; the same definition again changes nothing."""
    camera = Camera(camera_id=camera_id, display_name=name, zone=zone)
    with connect(target) as connection:
        stored = connection.gallery.CreateCamera(
            CreateCameraRequest(gallery=gallery, camera=camera)
        ).camera
    emit(_shown(stored), as_json=as_json, text=f"camera {stored.camera_id} is registered")


@app.command()
def retention(
    camera_id: Annotated[str, typer.Argument(help="A registered camera.")],
    days: Annotated[
        float | None, typer.Option(help="Keep its crops so many days after their capture.")
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", help="Keep them as the service keeps all.")
    ] = False,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Keep a camera's crops for a time of its own; what is too old then is dropped at once."""
    if (days is None) != default:
        raise typer.BadParameter("name one of --days and --default")
    request = UpdateCameraRetentionRequest(
        gallery=gallery, camera_id=camera_id, retention_days=days
    )
    with connect(target) as connection:
        stored = connection.admin.UpdateCameraRetention(request).camera
    told = "as the service keeps all" if default else f"{stored.retention_days:g} days"
    emit(_shown(stored), as_json=as_json, text=f"crops of camera {camera_id} are kept {told}")


@app.command()
def travel_times(
    learn: Annotated[bool, typer.Option("--learn", help="Learn them now.")] = False,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Print how long people take between cameras, as the gallery has taught."""
    with connect(target) as connection:
        found = (
            connection.search.LearnTravelTimes(LearnTravelTimesRequest(gallery=gallery))
            if learn
            else connection.search.GetTravelTimes(GetTravelTimesRequest(gallery=gallery))
        ).travel_times
    payload: dict[str, Any] = {
        "pairs": [_pair(pair) for pair in found.pairs],
        "learn_time": found.learn_time.ToJsonString(),
        "position": found.position,
        "model_version": found.model_version,
        "crops": found.crops,
        "tracks": found.tracks,
        "lowest_score": found.lowest_score,
        "lowest_probability": found.lowest_probability
        if found.HasField("lowest_probability")
        else None,
    }
    lines = [_line(pair) for pair in payload["pairs"]]
    lines.append(
        f"{len(lines)} pairs of {found.tracks} tracks, learned {payload['learn_time']}, matches "
        f"from a score of {found.lowest_score:.4f}"
    )
    emit(payload, as_json=as_json, text="\n".join(lines))


def _camera_line(camera: dict[str, Any]) -> str:
    days = camera["retention_days"]
    kept = "" if days is None else f"  (kept {days:g} days)"
    line = f"{camera['camera_id']:<20} {camera['zone']:<20} {camera['display_name']}{kept}"
    return line.rstrip()


def _pair(pair: LearnedTravelTime) -> dict[str, Any]:
    known = pair.HasField("min_seconds")
    return {
        "from": pair.from_camera_id,
        "to": pair.to_camera_id,
        "matches": pair.matches,
        "min_seconds": pair.min_seconds if known else None,
        "typical_seconds": pair.typical_seconds if known else None,
        "max_seconds": pair.max_seconds if known else None,
    }


def _line(pair: dict[str, Any]) -> str:
    told = f"unknown, {pair['matches']} matches"
    if pair["min_seconds"] is not None:
        told = (
            f"{pair['min_seconds']:.0f} to {pair['max_seconds']:.0f} s, typically "
            f"{pair['typical_seconds']:.0f} s, {pair['matches']} matches"
        )
    return f"{pair['from']:<12} {pair['to']:<12} {told}"


def _all(stub: GalleryServiceStub, gallery: str) -> Iterator[Camera]:
    token = ""
    while True:
        page = stub.ListCameras(ListCamerasRequest(gallery=gallery, page_token=token))
        yield from page.cameras
        token = page.next_page_token
        if not token:
            return


def _shown(camera: Camera) -> dict[str, Any]:
    return {
        "camera_id": camera.camera_id,
        "display_name": camera.display_name,
        "zone": camera.zone,
        "create_time": camera.create_time.ToJsonString(),
        "retention_days": camera.retention_days if camera.HasField("retention_days") else None,
    }
