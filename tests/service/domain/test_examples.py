"""Examples of a query, and what is wrong with bad ones."""

from __future__ import annotations

import math
from typing import Any

import pytest

from resight.errors import InvalidArgument
from service.domain.examples import Example, Fusion, checked_examples

ID = "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"
NOTHING = Example()


def test_the_query_is_the_first_positive() -> None:
    query, more = Example(image=b"q"), Example(crop_id=ID, weight=2.0)
    wanted, unwanted = checked_examples(
        query, [more], [Example(image=b"n")], fusion=Fusion.MEAN, limit=2
    )
    assert [item.example for item in wanted] == [query, more]
    assert [item.weight for item in wanted] == [1.0, 2.0]
    assert wanted[0].field("image") == "image"
    assert str(wanted[1].crop_id) == ID
    assert unwanted[0].field("image") == "negatives[0].image"
    alone, _ = checked_examples(NOTHING, [more], [], fusion=Fusion.MEAN, limit=2)
    assert [item.example for item in alone] == [more]


@pytest.mark.parametrize(
    ("query", "positives", "negatives", "fusion", "field"),
    [
        (NOTHING, [], [], Fusion.MEAN, "query"),
        (NOTHING, [], [Example(crop_id=ID)], Fusion.MEAN, "query"),
        (Example(image=b"a", crop_id=ID), [], [], Fusion.MEAN, "query"),
        (NOTHING, [NOTHING], [], Fusion.MEAN, "positives[0]"),
        (Example(image=b"a"), [], [NOTHING], Fusion.MEAN, "negatives[0]"),
        (NOTHING, [Example(crop_id=ID), Example(crop_id="x")], [], Fusion.MAX,
         "positives[1].crop_id"),
        (NOTHING, [Example(crop_id=ID, weight=1.0)], [], Fusion.MAX, "positives[0].weight"),
        (NOTHING, [Example(crop_id=ID, weight=0.0)], [], Fusion.MEAN, "positives[0].weight"),
        (NOTHING, [Example(crop_id=ID, weight=math.nan)], [], Fusion.MEAN, "positives[0].weight"),
        (NOTHING, [Example(crop_id=ID, weight=math.inf)], [], Fusion.QUALITY,
         "positives[0].weight"),
        (NOTHING, [Example(crop_id=ID)] * 3, [], Fusion.MEAN, "positives"),
        (Example(image=b"a"), [], [Example(crop_id=ID)] * 3, Fusion.MEAN, "negatives"),
    ],
)  # fmt: skip
def test_bad_examples_are_named(
    query: Example, positives: Any, negatives: Any, fusion: Fusion, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_examples(query, positives, negatives, fusion=fusion, limit=2)
    assert caught.value.field == field
    assert field in caught.value.message


def test_negatives_alone_are_told_what_is_missing() -> None:
    with pytest.raises(InvalidArgument, match="positives"):
        checked_examples(NOTHING, [], [Example(crop_id=ID)], fusion=Fusion.MAX, limit=2)
