"""How an answer came about, as the command line tells it."""

from __future__ import annotations

import pytest

from resight.client.provenance import provenance


@pytest.mark.parametrize(("lag", "told"), [(0.0, ""), (2.25, ", index 2.2 s behind")])
def test_mode_rows_model_and_a_lag_are_told(lag: float, told: str) -> None:
    payload = {
        "mode": "exact_scan",
        "rows_scanned": 7,
        "rows_total": 12,
        "model_version": "abc",
        "index_lag_seconds": lag,
    }
    assert provenance(payload) == "exact_scan of 7 of 12 crops, model abc" + told
