"""How an answer came about, in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["provenance"]


def provenance(payload: Mapping[str, Any]) -> str:
    """The mode, rows and model of an answer's JSON, and by how much its index lagged if it did."""
    lag = payload["index_lag_seconds"]
    behind = f", index {lag:.1f} s behind" if lag else ""
    return (
        f"{payload['mode']} of {payload['rows_scanned']} of {payload['rows_total']} crops, "
        f"model {payload['model_version']}{behind}"
    )
