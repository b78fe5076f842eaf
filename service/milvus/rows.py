"""Rows of an index as Milvus takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexRows
from service.milvus import expressions

__all__ = ["id_texts", "records"]


def id_texts(ids: NDArray[np.uint64]) -> list[str]:
    """Ids (N, 2) as 32 hexadecimal digits, which compare as the numbers do."""
    return [f"{high:016x}{low:016x}" for high, low in ids.tolist()]


def records(rows: IndexRows, ids: Sequence[str], chosen: NDArray[np.int64]) -> list[dict[str, Any]]:
    """The chosen rows, whose ids are ``ids`` as texts."""
    return [
        {
            "id": ids[row],
            "camera": int(rows.cameras[row]),
            "time": int(rows.times[row]),
            "zone": "" if rows.zones is None else expressions.text(rows.zones[row]),
            "track": "" if rows.tracks is None else expressions.text(rows.tracks[row]),
            "attributes": (
                [] if rows.attributes is None else expressions.attribute_words(rows.attributes[row])
            ),
            "vector": rows.vectors[row],
        }
        for row in chosen.tolist()
    ]
