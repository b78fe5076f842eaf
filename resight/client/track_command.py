"""``resight track``: where a running service saw a person, in order of time."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.options import AsJson, Gallery, Target, instant
from resight.client.provenance import provenance
from resight.console import emit
from resight.crops import read_crop
from resight.errors import InvalidArgument
from resight.v1 import search_service_pb2 as messages
from resight.v1.types_pb2 import CropFilter, TimeRange

__all__ = ["app"]

app = typer.Typer()

COLUMNS = ("from", "to", "min_seconds", "typical_seconds", "max_seconds")


@app.command()
def track(
    image: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="The person, cut out; several help.")
    ],
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    min_score: Annotated[
        float | None, typer.Option(help="Lowest cosine similarity of a sighting, -1 to 1.")
    ] = None,
    min_probability: Annotated[
        float | None, typer.Option(help="Lowest probability of a sighting, 0 to 1.")
    ] = None,
    most: Annotated[int | None, typer.Option(help="Most sightings looked at; 500.")] = None,
    visit_gap: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Longest pause in one visit; 60.")
    ] = None,
    travel_times: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help=f"CSV with the columns {', '.join(COLUMNS)}."),
    ] = None,
    learn_travel_times: Annotated[
        bool, typer.Option("--learn-travel-times", help="Use those that the gallery has taught.")
    ] = False,
    camera: Annotated[list[str] | None, typer.Option(help="Only these cameras.")] = None,
    since: Annotated[str | None, typer.Option(help="RFC 3339.")] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the visits of a person, and the way between them."""
    request = messages.TrackPersonRequest(
        query=messages.SearchRequest(
            gallery=gallery,
            image=read_crop(image[0]),
            positives=[messages.Example(image=read_crop(path)) for path in image[1:]],
            top_k=most,
            min_score=min_score,
            min_probability=min_probability,
            filter=CropFilter(
                include_camera_ids=camera or (),
                capture_range=TimeRange(
                    start_time=_timestamp(since, "--since"), end_time=_timestamp(until, "--until")
                ),
            ),
        ),
        visit_gap_seconds=visit_gap,
        travel_times=[] if travel_times is None else _travel_times(travel_times),
        use_learned_travel_times=learn_travel_times,
    )
    with connect(target) as connection:
        answer = connection.search.TrackPerson(request)
    payload: dict[str, Any] = {
        "visits": [_visit(visit) for visit in answer.visits],
        "hops": [_hop(hop) for hop in answer.hops],
        "conflicts": [
            {
                **_visit(conflict.visit),
                "with_visit": conflict.with_visit,
                "seconds": conflict.seconds,
                "min_seconds": conflict.min_seconds,
            }
            for conflict in answer.conflicts
        ],
        "truncated": answer.truncated,
        "model_version": answer.model_version,
        "mode": messages.SearchMode.Name(answer.mode).removeprefix("SEARCH_MODE_").lower(),
        "rows_scanned": answer.rows_scanned,
        "rows_total": answer.rows_total,
        "index_lag_seconds": answer.index_lag_seconds,
        "travel_times_learn_time": answer.travel_times_learn_time.ToJsonString()
        if answer.HasField("travel_times_learn_time")
        else None,
    }
    emit(payload, as_json=as_json, text=_text(payload))


def _travel_times(path: Path) -> list[messages.TravelTime]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise InvalidArgument(
                    f"{path}: the first line must be {','.join(COLUMNS)}", field="--travel-times"
                )
            return [_travel_time(path, reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}", field="--travel-times") from error


def _travel_time(path: Path, line: int, row: dict[str, str]) -> messages.TravelTime:
    try:
        least, typical, most = (float(row[name]) for name in COLUMNS[2:])
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{path}, line {line}: needs two cameras and three numbers of seconds",
            field="--travel-times",
        ) from error
    return messages.TravelTime(
        from_camera_id=row["from"],
        to_camera_id=row["to"],
        min_seconds=least,
        typical_seconds=typical,
        max_seconds=most,
    )


def _visit(visit: messages.Visit) -> dict[str, Any]:
    return {
        "camera_id": visit.camera_id,
        "start_time": visit.start_time.ToJsonString(),
        "end_time": visit.end_time.ToJsonString(),
        "best_score": max(match.score for match in visit.sightings),
        "crop_ids": [match.crop.crop_id for match in visit.sightings],
    }


def _hop(hop: messages.Hop) -> dict[str, Any]:
    return {
        "kind": messages.Hop.Kind.Name(hop.kind).removeprefix("KIND_").lower(),
        "seconds": hop.seconds,
        "plausibility": hop.plausibility if hop.HasField("plausibility") else None,
    }


def _text(payload: dict[str, Any]) -> str:
    lines = []
    for place, visit in enumerate(payload["visits"]):
        if place:
            hop = payload["hops"][place - 1]
            fit = hop["plausibility"]
            told = hop["kind"].replace("_", " ") + ("" if fit is None else f" {fit:.2f}")
            lines.append(f"      {hop['seconds']:.0f} s, {told}")
        lines.append(_line(place, visit))
    lines += [
        f"left out: {_line(None, visit).strip()}, {visit['seconds']:.0f} s from or to visit "
        f"{visit['with_visit']}, at least {visit['min_seconds']:.0f} s are needed"
        for visit in payload["conflicts"]
    ]
    more = "; more sightings than were looked at, raise --most" if payload["truncated"] else ""
    lines.append(f"{len(payload['visits'])} visits; {provenance(payload)}{more}")
    return "\n".join(lines)


def _line(place: int | None, visit: dict[str, Any]) -> str:
    number = "" if place is None else str(place)
    return (
        f"{number:>4}  {visit['camera_id']:<12} {visit['start_time']} to {visit['end_time']}, "
        f"{len(visit['crop_ids'])} crops, best {visit['best_score']:.4f}"
    )


def _timestamp(text: str | None, option: str) -> Timestamp | None:
    time = instant(text, option)
    if time is None:
        return None
    message = Timestamp()
    message.FromDatetime(time)
    return message
