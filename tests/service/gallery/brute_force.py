"""A search written out in plain Python, row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np

from service.domain.crop import AttributeTerm
from service.domain.ports import IndexRows, RowFilter
from service.gallery.row_ids import id_halves


@dataclass(frozen=True)
class Row:
    """One row as a plain value."""

    crop_id: UUID
    vector: np.ndarray
    camera: int = 0
    time: int = 0
    zone: str = ""
    track: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


def unit(values: np.ndarray) -> np.ndarray:
    """Unit length, float32."""
    wide = values.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=-1, keepdims=True)).astype(np.float32)


def as_rows(rows: Sequence[Row]) -> IndexRows:
    """The rows as an index takes them."""
    return IndexRows(
        ids=id_halves([row.crop_id for row in rows]),
        cameras=np.array([row.camera for row in rows]),
        times=np.array([row.time for row in rows], np.int64),
        vectors=np.stack([row.vector for row in rows]),
        zones=[row.zone for row in rows],
        tracks=[row.track for row in rows],
        attributes=[row.attributes for row in rows],
    )


def passes(row: Row, chosen: RowFilter) -> bool:
    """Whether a row passes all but ``exclude_ids``."""

    def matches(term: AttributeTerm) -> bool:
        if term.key not in row.attributes:
            return False
        return not term.values or row.attributes[term.key] in term.values

    return (
        (chosen.include_cameras is None or row.camera in chosen.include_cameras)
        and row.camera not in chosen.exclude_cameras
        and (chosen.start is None or row.time >= chosen.start)
        and (chosen.end is None or row.time < chosen.end)
        and (chosen.include_zones is None or row.zone in chosen.include_zones)
        and row.zone not in chosen.exclude_zones
        and (chosen.include_tracks is None or row.track in chosen.include_tracks)
        and row.track not in chosen.exclude_tracks
        and all(matches(term) for term in chosen.include_attributes)
        and not any(matches(term) for term in chosen.exclude_attributes)
        and not any(
            row.camera == span.camera and span.start <= row.time < span.end
            for span in chosen.exclude_spans
        )
    )


def score(vector: np.ndarray, query: np.ndarray) -> float:
    """The exact sum of exact products, rounded to float32."""
    products = [a * b for a, b in zip(vector.tolist(), query.tolist(), strict=True)]
    return float(np.float32(math.fsum(products)))


def brute_force(
    rows: Sequence[Row],
    query: np.ndarray,
    top_k: int,
    chosen: RowFilter,
    min_score: float | None,
) -> tuple[list[tuple[UUID, float]], int]:
    """The answer, and how many rows passed the filter."""
    passing = [row for row in rows if passes(row, chosen)]
    found = [
        (row.crop_id, score(row.vector, query))
        for row in passing
        if row.crop_id not in chosen.exclude_ids
    ]
    if min_score is not None:
        found = [hit for hit in found if hit[1] >= float(np.float32(min_score))]
    found.sort(key=lambda hit: (-hit[1], hit[0].int))
    return found[:top_k], len(passing)
