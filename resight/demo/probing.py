"""Every probe asked of the running service, and judged by the simulator's truth."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from resight.client.connection import Connection
from resight.errors import FailedPrecondition
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.types_pb2 import CropFilter

__all__ = ["Answer", "RankedMatch", "probe_service"]


@dataclass(frozen=True)
class RankedMatch:
    """One match of an answer."""

    image: Path
    camera: str
    capture_time: datetime
    score: float
    correct: bool


@dataclass(frozen=True)
class Answer:
    """What the service said to one probe."""

    image: Path
    camera: str
    capture_time: datetime
    matches: tuple[RankedMatch, ...]

    @property
    def correct(self) -> bool:
        """Whether the best match shows the same person."""
        return bool(self.matches) and self.matches[0].correct


def probe_service(
    connection: Connection,
    crops: Path,
    *,
    top_k: int,
    advance: Callable[[int], object] = lambda _: None,
) -> list[Answer]:
    """Search for every query crop of a simulation among the ingested gallery.

    As in the field's protocol a person is looked for on other cameras: the probe's own camera is
    excluded by the search's filter.

    Args:
        connection: To a service that holds the gallery of ``crops``.
        crops: Folder that ``resight simulate`` wrote.
        top_k: Matches asked for.
        advance: Called with 1 after each answer.

    Raises:
        FailedPrecondition: The service returned a crop that is not of this gallery.
    """
    truth = {
        hashlib.sha256((crops / row["path"]).read_bytes()).digest(): row
        for row in _rows(crops / "gallery.csv")
    }
    answers = []
    for row in _rows(crops / "query.csv"):
        path = crops / row["path"]
        response = connection.search.Search(
            SearchRequest(
                image=path.read_bytes(),
                top_k=top_k,
                filter=CropFilter(exclude_camera_ids=[row["camera"]]),
            )
        )
        matches = []
        for match in response.matches:
            known = truth.get(match.crop.sha256)
            if known is None:
                raise FailedPrecondition(
                    f"crop {match.crop.crop_id} of the service is not in {crops}/gallery.csv; "
                    "start from an empty data folder"
                )
            matches.append(
                RankedMatch(
                    image=crops / known["path"],
                    camera=match.crop.camera_id,
                    capture_time=match.crop.capture_time.ToDatetime(),
                    score=match.score,
                    correct=known["identity"] == row["identity"],
                )
            )
        moment = datetime.fromisoformat(row["capture_time"])
        answers.append(Answer(path, row["camera"], moment, tuple(matches)))
        advance(1)
    return answers


def _rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
