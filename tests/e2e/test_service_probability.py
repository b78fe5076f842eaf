"""Probabilities and thresholds on them, through a real service."""

from __future__ import annotations

import math
from typing import Any

import grpc
import numpy as np
import pytest

from resight.client.connection import connect
from resight.v1 import search_service_pb2 as search_pb2
from tests.e2e.retrieval_site import (
    CROPS,
    DATABASES,
    INTERCEPT,
    SLOPE,
    Site,
    crop_ids,
    refused,
)


@DATABASES
def test_every_match_has_its_probability_and_the_threshold_keeps_the_likely(site: Site) -> None:
    scores = site.vectors @ site.vectors[4]
    likely = 1 / (1 + np.exp(-(SLOPE * scores + INTERCEPT)))
    answer = site.grpc(crop_id=site.ids[4], top_k=CROPS)
    for match in answer.matches:
        number = site.ids.index(match.crop.crop_id)
        assert match.probability == pytest.approx(likely[number], abs=1e-5)
    threshold = float(np.sort(likely)[-8:-6].mean())
    expected = site.ranked(scores, [n for n in range(CROPS) if likely[n] >= threshold and n != 4])
    assert len(expected) == 6
    for found in (
        site.grpc(crop_id=site.ids[4], top_k=CROPS, min_probability=threshold),
        site.rest(crop_id=site.ids[4], top_k=CROPS, min_probability=threshold),
    ):
        assert crop_ids(found) == expected
    both = site.rest(crop_id=site.ids[4], min_probability=threshold, min_score=0.999)
    assert (both["matches"], both["rows_total"]) == ([], CROPS)
    assert both["index_lag_seconds"] == answer.index_lag_seconds == 0.0


@DATABASES
def test_a_probability_in_a_form(site: Site) -> None:
    form = {"min_probability": "0.999999"}
    files = {"image": ("q.jpg", site.image(3004))}
    answer = site.client.post("/search", files=files, data=form)
    assert (answer.status_code, answer.json()["matches"]) == (200, [])


@DATABASES
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan])
def test_what_is_no_probability_is_refused(site: Site, value: float) -> None:
    found = refused(lambda: site.grpc(crop_id=site.ids[0], min_probability=value))
    assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "min_probability")
    if not math.isnan(value):
        body = {"crop_id": site.ids[0], "min_probability": value}
        answer = site.client.post("/search", json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, "min_probability")


def test_without_a_calibration_no_probability_is_made_up(service: Any, make_jpeg: Any) -> None:
    with connect(service.grpc) as connection:

        def ask(**fields: Any) -> Any:
            request = search_pb2.SearchRequest(image=make_jpeg(1), **fields)
            return connection.search.Search(request)

        assert not any(match.HasField("probability") for match in ask().matches)
        found = refused(lambda: ask(min_probability=0.5))
    assert (found[0], found[2]) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_CALIBRATION")
