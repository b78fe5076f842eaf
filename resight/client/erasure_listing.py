"""An erasure and its list as they are shown: a table, JSON, a contact sheet."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from resight.client.connection import Connection
from resight.client.erasure_sheet import SheetCrop, write_sheet
from resight.console import emit, note
from resight.v1 import admin_service_pb2 as messages
from resight.v1.gallery_service_pb2 import GetCropRequest

__all__ = ["listed", "payload_of", "show_list", "state_of", "write_list_sheet"]

_PAGE = 1000
_SHOWN = 50
_STATES = messages.Erasure.State


def listed(connection: Connection, gallery: str, erasure: str) -> Iterator[messages.ErasureCrop]:
    """Every crop of a list, in its order."""
    token = ""
    while True:
        request = messages.ListErasureCropsRequest(
            gallery=gallery, erasure_id=erasure, page_size=_PAGE, page_token=token
        )
        page = connection.admin.ListErasureCrops(request)
        yield from page.crops
        token = page.next_page_token
        if not token:
            return


def write_list_sheet(
    connection: Connection,
    gallery: str,
    erasure: messages.Erasure,
    crops: list[messages.ErasureCrop],
    output: Path,
) -> None:
    """Write the contact sheet of what would go."""

    def pictured() -> Iterator[SheetCrop]:
        for item in crops:
            if (
                item.outcome
                not in (
                    messages.ErasureCrop.OUTCOME_LISTED,
                    messages.ErasureCrop.OUTCOME_KEPT,
                )
                or not item.crop.camera_id
            ):
                continue
            request = GetCropRequest(gallery=gallery, crop_id=item.crop.crop_id, include_image=True)
            yield SheetCrop(
                item.crop.crop_id,
                item.crop.camera_id,
                item.crop.capture_time.ToJsonString(),
                item.score if item.HasField("score") else None,
                connection.gallery.GetCrop(request).image,
            )

    title = f"Erasure {erasure.erasure_id}: {erasure.crops} crops, {erasure.subject}"
    write_sheet(output, title, pictured())
    note(f"wrote {output}: it shows people; delete it when the review is done")


def show_list(
    erasure: messages.Erasure,
    crops: list[messages.ErasureCrop],
    *,
    as_json: bool,
    advice: bool,
) -> None:
    """Print an erasure and its list."""
    lines = [
        f"{place:>5}  {_score(item)}{item.crop.camera_id or '-':<12} "
        f"{item.crop.capture_time.ToJsonString() if item.crop.camera_id else '-':<24} "
        f"{item.crop.crop_id}  {_outcome(item)}".rstrip()
        for place, item in enumerate(crops, 1)
    ]
    if len(lines) > _SHOWN and sys.stdout.isatty():
        lines = [*lines[:_SHOWN], f"… {len(lines) - _SHOWN} more (--json, or into a file)"]
    lines.append(
        f"erasure {erasure.erasure_id}: {state_of(erasure)}, {erasure.crops} crops to go, "
        f"{erasure.kept} kept, {erasure.removed} removed, {erasure.absent} absent"
    )
    if erasure.more_matched:
        lines.append("more crops match than the list holds: erase again after this, or --max-crops")
    if advice:
        lines.append(
            f"remove them: resight erase confirm {erasure.erasure_id} --crops {erasure.crops}"
        )
    told = payload_of(erasure) | {"list": [_crop(item) for item in crops]}
    emit(told, as_json=as_json, text="\n".join(lines))


def payload_of(erasure: messages.Erasure) -> dict[str, Any]:
    """An erasure as JSON values."""
    return {
        "erasure_id": erasure.erasure_id,
        "gallery": erasure.gallery,
        "state": state_of(erasure),
        "subject": json.loads(erasure.subject),
        "reason": erasure.reason,
        "principal": erasure.principal,
        "confirmer": erasure.confirmer,
        "crops": erasure.crops,
        "kept": erasure.kept,
        "removed": erasure.removed,
        "absent": erasure.absent,
        "more_matched": erasure.more_matched,
        "create_time": erasure.create_time.ToJsonString(),
        "confirm_time": _time(erasure, "confirm_time"),
        "complete_time": _time(erasure, "complete_time"),
        "receipt": json.loads(erasure.receipt) if erasure.receipt else None,
    }


def _crop(item: messages.ErasureCrop) -> dict[str, Any]:
    return {
        "crop_id": item.crop.crop_id,
        "camera_id": item.crop.camera_id or None,
        "capture_time": _time(item.crop, "capture_time"),
        "track_id": item.crop.track_id,
        "score": round(item.score, 6) if item.HasField("score") else None,
        "outcome": _outcome(item),
    }


def _time(message: Any, name: str) -> str | None:
    return getattr(message, name).ToJsonString() if message.HasField(name) else None


def state_of(erasure: messages.Erasure) -> str:
    """How far an erasure has come, in a word."""
    return _STATES.Name(erasure.state).removeprefix("STATE_").lower()


def _outcome(item: messages.ErasureCrop) -> str:
    return messages.ErasureCrop.Outcome.Name(item.outcome).removeprefix("OUTCOME_").lower()


def _score(item: messages.ErasureCrop) -> str:
    return f"{item.score:7.4f}  " if item.HasField("score") else ""
