"""Filters as Milvus expressions. What they match: tests/contract."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.errors import InvalidArgument
from service.domain.crop import AttributeTerm
from service.domain.ports import CameraSpan, RowFilter
from service.milvus import expressions

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(TEXTS, min_size=1, max_size=4), TEXTS)
def test_no_text_leaves_its_literal(zones: list[str], key: str) -> None:
    """Between two quotes only letters, digits and five signs; without literals a known skeleton."""
    chosen = RowFilter(
        include_zones=frozenset(zones),
        exclude_tracks=frozenset(zones),
        include_attributes=[AttributeTerm(key, zones)],
        exclude_attributes=[AttributeTerm(key)],
    )
    expression = expressions.conditions(chosen, times=True)
    skeleton = re.sub(r'"[A-Za-z0-9_.~%=-]*"', "T", expression)
    skeleton = re.sub(r"T(, T)*", "T", skeleton)
    assert skeleton == (
        "(zone in [T]) and (track not in [T]) and (array_contains_any(attributes, [T])) "
        "and (not array_contains_any(attributes, [T]))"
    )


@given(st.dictionaries(TEXTS, TEXTS, max_size=4), st.dictionaries(TEXTS, TEXTS, max_size=4))
def test_different_attributes_are_different_words(
    first: dict[str, str], second: dict[str, str]
) -> None:
    words = [set(expressions.attribute_words(each)) for each in (first, second)]
    assert (words[0] == words[1]) == (first == second)
    assert len(words[0]) == 2 * len(first)


def test_nothing_asked_is_an_empty_expression() -> None:
    assert expressions.conditions(RowFilter(), times=True) == ""
    assert expressions.conditions(RowFilter(start=5, end=9), times=False) == ""
    # A span that holds no instant asks nothing either.
    empty = RowFilter(exclude_spans=[CameraSpan(1, 9, 9)])
    assert expressions.conditions(empty, times=True) == ""


def test_an_empty_include_matches_nothing() -> None:
    assert expressions.matches_nothing(RowFilter(include_zones=frozenset()))
    assert expressions.matches_nothing(RowFilter(start=9, end=9))
    assert not expressions.matches_nothing(RowFilter(include_zones=frozenset([""])))


def test_an_expression_too_long_is_refused_by_name() -> None:
    many = frozenset(f"{number:0128d}" for number in range(40_000))
    with pytest.raises(InvalidArgument, match="max_filter_terms"):
        expressions.conditions(RowFilter(include_tracks=many), times=True)
