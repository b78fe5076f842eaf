"""``resight search``: ask a running service who looks like the person in an image."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from resight.attribute_terms import parse_attribute_terms
from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.options import AsJson, Gallery, Target, instant
from resight.client.provenance import provenance
from resight.console import emit
from resight.crops import read_crop
from resight.errors import InvalidArgument
from resight.v1 import search_service_pb2
from resight.v1.types_pb2 import AttributeTerm, CropFilter, TimeRange

__all__ = ["app"]

app = typer.Typer()


class OwnCamera(StrEnum):
    """Whether crops of the query's own camera may match."""

    ANY = "any"
    EXCLUDE = "exclude"
    EXCLUDE_WITHIN = "exclude-within"


class GroupBy(StrEnum):
    """What the matches of a group have in common."""

    NOTHING = "nothing"
    CAMERA = "camera"
    TRACK = "track"


class Fusion(StrEnum):
    """How several images become one ranking."""

    MEAN = "mean"
    MAX = "max"
    QUALITY = "quality"


_GROUPS = {
    GroupBy.NOTHING: search_service_pb2.GROUP_BY_UNSPECIFIED,
    GroupBy.CAMERA: search_service_pb2.GROUP_BY_CAMERA,
    GroupBy.TRACK: search_service_pb2.GROUP_BY_TRACK,
}

Texts = Annotated[list[str] | None, typer.Option()]
Time = Annotated[str | None, typer.Option(help="RFC 3339, such as 2026-01-01T00:00:00Z.")]


@app.command()
def search(
    image: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="The person, cut out; several help.")
    ],
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    top_k: Annotated[int, typer.Option(help="Matches wanted.")] = 10,
    min_score: Annotated[
        float | None, typer.Option(help="Lowest cosine similarity, -1 to 1.")
    ] = None,
    min_probability: Annotated[
        float | None, typer.Option(help="Lowest probability of one person, 0 to 1.")
    ] = None,
    page_token: Annotated[
        str, typer.Option(help="Go on after a page: its next_page_token (--json shows it).")
    ] = "",
    each: Annotated[
        bool, typer.Option("--each", help="Every image is a query of its own.")
    ] = False,
    unlike: Annotated[
        list[Path] | None, typer.Option(metavar="IMAGE", help="Somebody else, cut out.")
    ] = None,
    fusion: Annotated[
        Fusion, typer.Option(help="How several images become one ranking.")
    ] = Fusion.MEAN,
    group_by: Annotated[
        GroupBy, typer.Option(help="Show the best groups; --top-k is how many.")
    ] = GroupBy.NOTHING,
    group_size: Annotated[int | None, typer.Option(help="Most matches a group.")] = None,
    rerank: Annotated[
        int | None,
        typer.Option(metavar="N", help="Rank the best N again by their common neighbours."),
    ] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only these cameras.")] = None,
    exclude_camera: Annotated[list[str] | None, typer.Option(help="None of these.")] = None,
    zone: Texts = None,
    exclude_zone: Texts = None,
    track: Texts = None,
    exclude_track: Texts = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY[=VALUE]", help="Only crops with it; one key, several values: or."
        ),
    ] = None,
    exclude_attribute: Annotated[
        list[str] | None, typer.Option(metavar="KEY[=VALUE]", help="No crop with any of these.")
    ] = None,
    since: Time = None,
    until: Time = None,
    own_camera: Annotated[
        OwnCamera, typer.Option(help="Whether the query's own camera may match.")
    ] = OwnCamera.ANY,
    own_camera_window: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With exclude-within: how far.")
    ] = None,
    query_camera: Annotated[str, typer.Option(help="The camera that saw IMAGE.")] = "",
    query_time: Annotated[str | None, typer.Option(help="When it did, RFC 3339.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the best matches, best first."""
    request = search_service_pb2.SearchRequest(
        gallery=gallery,
        negatives=[_example(path) for path in unlike or ()],
        fusion=search_service_pb2.Fusion.Value(f"FUSION_{fusion.name}"),
        top_k=top_k,
        min_score=min_score,
        min_probability=min_probability,
        page_token=page_token,
        group_by=_GROUPS[group_by],
        group_size=group_size,
        rerank=None if rerank is None else search_service_pb2.Rerank(candidates=rerank),
        filter=CropFilter(
            include_camera_ids=camera or (),
            exclude_camera_ids=exclude_camera or (),
            capture_range=TimeRange(
                start_time=_timestamp(since, "--since"), end_time=_timestamp(until, "--until")
            ),
            include_zones=zone or (),
            exclude_zones=exclude_zone or (),
            include_track_ids=track or (),
            exclude_track_ids=exclude_track or (),
            include_attributes=_terms(attribute, "--attribute"),
            exclude_attributes=_terms(exclude_attribute, "--exclude-attribute"),
        ),
        own_camera=search_service_pb2.OwnCamera.Value(f"OWN_CAMERA_{own_camera.name}"),
        own_camera_window=_duration(own_camera_window),
        query_camera_id=query_camera,
        query_capture_time=_timestamp(query_time, "--query-time"),
    )
    if each:
        _search_each(request, image, target, as_json=as_json)
        return
    request.image = read_crop(image[0])
    request.positives.extend(_example(path) for path in image[1:])
    with connect(target) as connection:
        payload = _payload(connection.search.Search(request))
    emit(payload, as_json=as_json, text=_table(payload))


def _search_each(
    request: search_service_pb2.SearchRequest, images: list[Path], target: str, *, as_json: bool
) -> None:
    batch = search_service_pb2.SearchBatchRequest()
    for path in images:
        query = batch.queries.add()
        query.CopyFrom(request)
        query.image = read_crop(path)
    with connect(target) as connection:
        results = connection.search.SearchBatch(batch).results
    answers: list[dict[str, Any]] = []
    for path, result in zip(images, results, strict=True):
        if result.HasField("error"):
            error = result.error
            told = {"reason": error.reason, "field": error.field, "message": error.message}
            answers.append({"image": str(path), "error": told})
        else:
            answers.append({"image": str(path), **_payload(result.response)})
    texts = [
        f"{answer['image']}\n"
        + (f"error: {answer['error']['message']}" if "error" in answer else _table(answer))
        for answer in answers
    ]
    emit({"answers": answers}, as_json=as_json, text="\n".join(texts))
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def _payload(answer: search_service_pb2.SearchResponse) -> dict[str, Any]:
    mode = search_service_pb2.SearchMode.Name(answer.mode).removeprefix("SEARCH_MODE_").lower()
    return {
        "matches": [_match(rank, match) for rank, match in enumerate(answer.matches, 1)],
        "groups": [_group(group) for group in answer.groups],
        "model_version": answer.model_version,
        "mode": mode,
        "rows_scanned": answer.rows_scanned,
        "rows_total": answer.rows_total,
        "index_lag_seconds": answer.index_lag_seconds,
        "next_page_token": answer.next_page_token,
    }


def _match(rank: int, match: search_service_pb2.Match) -> dict[str, Any]:
    crop = match.crop
    return {
        "rank": rank,
        "score": round(match.score, 6),
        "probability": match.probability if match.HasField("probability") else None,
        "rerank_distance": match.rerank_distance if match.HasField("rerank_distance") else None,
        "camera_id": crop.camera_id,
        "capture_time": crop.capture_time.ToJsonString(),
        "track_id": crop.track_id,
        "zone": crop.zone,
        "crop_id": crop.crop_id,
    }


def _table(payload: dict[str, Any]) -> str:
    lines = [_line(match) for match in payload["matches"]]
    for group in payload["groups"]:
        lines.append(f"{group['camera_id']} {group['track_id']}".rstrip())
        lines += [_line(match) for match in group["matches"]]
    groups = len(payload["groups"])
    found = f"{groups} groups" if groups else f"{len(payload['matches'])} matches"
    lines.append(f"{found}; {provenance(payload)}")
    return "\n".join(lines)


def _group(group: search_service_pb2.MatchGroup) -> dict[str, Any]:
    return {
        "camera_id": group.camera_id,
        "track_id": group.track_id,
        "matches": [_match(rank, match) for rank, match in enumerate(group.matches, 1)],
    }


def _example(path: Path) -> search_service_pb2.Example:
    return search_service_pb2.Example(image=read_crop(path))


def _line(match: dict[str, Any]) -> str:
    return (
        f"{match['rank']:>4}  {match['score']:7.4f}  {_percent(match['probability'])}"
        f"{match['camera_id']:<12} {match['capture_time']:<24} {match['crop_id']}"
    )


def _percent(probability: float | None) -> str:
    return "" if probability is None else f"{probability:6.1%}  "


def _terms(texts: list[str] | None, option: str) -> list[AttributeTerm]:
    try:
        found = parse_attribute_terms(texts or (), field=option)
    except InvalidArgument as error:
        raise typer.BadParameter(error.message) from error
    return [AttributeTerm(key=key, values=values) for key, values in found.items()]


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    message = Duration()
    try:
        message.FromTimedelta(timedelta(seconds=seconds))
    except (OverflowError, ValueError) as error:
        raise typer.BadParameter("not a span of time", param_hint="--own-camera-window") from error
    return message


def _timestamp(text: str | None, option: str) -> Timestamp | None:
    time = instant(text, option)
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
