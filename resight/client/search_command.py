"""``resight search``: ask a running service who looks like the person in an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.options import AsJson, Gallery, Target, instant
from resight.console import emit
from resight.crops import read_crop
from resight.v1 import search_service_pb2
from resight.v1.types_pb2 import CropFilter, TimeRange

__all__ = ["app"]

app = typer.Typer()

Time = Annotated[str | None, typer.Option(help="RFC 3339, such as 2026-01-01T00:00:00Z.")]


@app.command()
def search(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The person, cut out.")],
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    top_k: Annotated[int, typer.Option(help="Matches wanted.")] = 10,
    min_score: Annotated[
        float | None, typer.Option(help="Lowest cosine similarity, -1 to 1.")
    ] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only these cameras.")] = None,
    exclude_camera: Annotated[list[str] | None, typer.Option(help="None of these.")] = None,
    since: Time = None,
    until: Time = None,
    as_json: AsJson = False,
) -> None:
    """Print the best matches, best first."""
    request = search_service_pb2.SearchRequest(
        gallery=gallery,
        image=read_crop(image),
        top_k=top_k,
        min_score=min_score,
        filter=CropFilter(
            include_camera_ids=camera or (),
            exclude_camera_ids=exclude_camera or (),
            capture_range=TimeRange(
                start_time=_timestamp(since, "--since"), end_time=_timestamp(until, "--until")
            ),
        ),
    )
    with connect(target) as connection:
        answer = connection.search.Search(request)
    mode = search_service_pb2.SearchMode.Name(answer.mode).removeprefix("SEARCH_MODE_").lower()
    matches = [_match(rank, match) for rank, match in enumerate(answer.matches, 1)]
    payload: dict[str, Any] = {
        "matches": matches,
        "model_version": answer.model_version,
        "mode": mode,
        "rows_scanned": answer.rows_scanned,
        "rows_total": answer.rows_total,
    }
    emit(payload, as_json=as_json, text=_table(payload))


def _match(rank: int, match: search_service_pb2.Match) -> dict[str, Any]:
    crop = match.crop
    return {
        "rank": rank,
        "score": round(match.score, 6),
        "camera_id": crop.camera_id,
        "capture_time": crop.capture_time.ToJsonString(),
        "track_id": crop.track_id,
        "zone": crop.zone,
        "crop_id": crop.crop_id,
    }


def _table(payload: dict[str, Any]) -> str:
    lines = [
        f"{match['rank']:>4}  {match['score']:7.4f}  {match['camera_id']:<12} "
        f"{match['capture_time']:<24} {match['crop_id']}"
        for match in payload["matches"]
    ]
    lines.append(
        f"{len(payload['matches'])} matches; {payload['mode']} of {payload['rows_scanned']} of "
        f"{payload['rows_total']} crops, model {payload['model_version']}"
    )
    return "\n".join(lines)


def _timestamp(text: str | None, option: str) -> Timestamp | None:
    time = instant(text, option)
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
