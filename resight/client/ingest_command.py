"""``resight ingest``: send a folder or manifest to a running service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from resight.client.capture_times import CaptureTimeSource, with_capture_times
from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.ingest import DEFAULT_PATIENCE, IngestReport, Uploader
from resight.client.options import AsJson, Gallery, Target, instant
from resight.console import emit, note, progress
from resight.crops import CropRef, SourceReport, open_source
from resight.errors import InvalidArgument, PermissionDenied, Unauthenticated
from resight.interruption import interrupted_by_sigterm
from resight.v1.gallery_service_pb2 import CreateCameraRequest
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.types_pb2 import Camera

__all__ = ["app"]

app = typer.Typer()


@app.command()
def ingest(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder, .csv or .parquet.")],
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    register_cameras: Annotated[
        bool, typer.Option("--register-cameras", help="Register the source's cameras first.")
    ] = False,
    capture_time_from: Annotated[
        CaptureTimeSource | None,
        typer.Option(help="Where missing capture times come from; without it they are an error."),
    ] = None,
    assume_start: Annotated[
        str | None,
        typer.Option(help="Time of frame 0 (RFC 3339) for --capture-time-from frame."),
    ] = None,
    window: Annotated[int, typer.Option(min=1, max=4096, help="Crops in flight.")] = 64,
    patience: Annotated[
        float,
        typer.Option(min=0, help="Seconds without progress after which the service is given up."),
    ] = DEFAULT_PATIENCE,
    as_json: AsJson = False,
) -> None:
    """Send crops to a running service and wait until each is committed.

    Exits 0 when at least one crop is stored (now or before); what was rejected or skipped is
    counted by reason. Exits 1 when nothing is stored or the service went away.
    """
    found = open_source(source).scan()
    crops = with_capture_times(
        _with_cameras(found),
        source=capture_time_from,
        start=instant(assume_start, "--assume-start"),
    )
    begun = time.monotonic()
    with (
        interrupted_by_sigterm(),
        connect(target) as connection,
        progress("ingesting", len(crops)) as bar,
    ):
        if register_cameras:
            _register(connection.gallery, gallery, found)
        uploader = Uploader(
            connection.gallery,
            gallery=gallery,
            window=window,
            patience=patience,
            advance=bar.advance,
        )
        try:
            report = uploader.send(crops)
        except BaseException as error:
            if uploader.report.stored or not _refused(error):
                note(
                    f"{uploader.report.stored} of {len(crops)} crops are stored; run the same "
                    "command again for the rest"
                )
            raise
    _show(found, report, time.monotonic() - begun, as_json=as_json)
    if not report.stored:
        raise typer.Exit(1)


def _refused(error: BaseException) -> bool:
    """Whether the same command would be answered the same."""
    if isinstance(error, grpc.RpcError):
        status = getattr(error, "code", lambda: None)()
        return status in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)
    return isinstance(error, PermissionDenied | Unauthenticated)


def _with_cameras(found: SourceReport) -> Sequence[CropRef]:
    crops = found.require_crops()
    missing = [crop for crop in crops if crop.camera is None]
    if missing:
        raise InvalidArgument(
            f"{len(missing)} crops have no camera (first: {missing[0].path}); ingest a manifest "
            "with a camera column, or name the files as in 0001_c1s1_000151_01.jpg",
            field="camera",
        )
    return crops


def _register(stub: GalleryServiceStub, gallery: str, found: SourceReport) -> None:
    for camera_id in found.cameras:
        request = CreateCameraRequest(gallery=gallery, camera=Camera(camera_id=camera_id))
        try:
            stub.CreateCamera(request)
        except grpc.RpcError as error:
            # Registered before, with a name or zone of its own: that definition stays.
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise


def _show(found: SourceReport, report: IngestReport, seconds: float, *, as_json: bool) -> None:
    rejected = dict(sorted(report.rejected.items()))
    for line in report.first_rejections:
        note(f"rejected {line}")
    payload: dict[str, Any] = {
        "source": found.summary(),
        "accepted": report.accepted,
        "duplicate": report.duplicate,
        "rejected": report.rejected.total(),
        "rejected_by_reason": rejected,
        "retries": report.retries,
        "seconds": round(seconds, 3),
        "crops_per_second": round(report.settled / seconds, 1) if seconds else None,
    }
    reasons = "".join(f"\n  rejected       {n} {reason}" for reason, n in rejected.items())
    emit(
        payload,
        as_json=as_json,
        text=(
            f"{found.describe()}\n"
            f"{report.accepted} accepted, {report.duplicate} already there, "
            f"{report.rejected.total()} rejected, in {seconds:.1f} s "
            f"({report.settled / max(seconds, 1e-9):.0f} crops/s){reasons}"
        ),
    )
