"""Words by code, before and after their dictionary is given up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.crop import AttributeTerm
from service.gallery import vocabulary
from service.gallery.attribute_sets import AttributeSets
from service.gallery.vocabulary import Vocabulary


@pytest.mark.parametrize("count", [3, 5000])
def test_frozen_words_are_found_as_before(count: int) -> None:
    words = Vocabulary(f"word {number}" for number in range(count))
    sought = ["word 2", "word 9999", "", f"word {count - 1}", "word 0"]
    before, size = words.find(sought), words.nbytes
    words.freeze()
    assert words.find(sought) == before == [2, count - 1, 0]
    assert list(words.values[:3]) == ["word 0", "word 1", "word 2"]
    assert words.nbytes < 0.8 * size or count <= vocabulary.FEW


def test_values_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "FEW", 0)
    numbers = Vocabulary([-2, 5, -1, 0])
    assert hash(-1) == hash(-2)
    numbers.freeze()
    assert numbers.find([-1, -2, 7, 0]) == [2, 0, 3]
    lacking = Vocabulary([-2, 5])
    lacking.freeze()
    assert lacking.find([-1]) == []


def test_encoding_that_breaks_off_leaves_the_words_right() -> None:
    words = Vocabulary(["a"])

    def broken() -> Iterator[str]:
        yield "b"
        raise MemoryError

    with pytest.raises(MemoryError):
        words.encode(broken())
    assert words.encode(["c", "b", "a"]).tolist() == [2, 1, 0]
    assert list(words.values) == ["a", "b", "c"]
    assert words.find(["a", "b", "c"]) == [0, 1, 2]


KEYS, VALUES = ["bag", "coat", "id"], ["red", "blue", "1", "2"]
MAPS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
TERMS = st.builds(
    AttributeTerm,
    st.sampled_from([*KEYS, "hat"]),
    st.lists(st.sampled_from([*VALUES, "none"]), max_size=4),
)


@given(rows=st.lists(MAPS, min_size=1, max_size=30), term=TERMS, frozen=st.booleans())
def test_sets_that_match_a_term_are_those_a_loop_finds(
    rows: list[dict[str, str]], term: AttributeTerm, frozen: bool
) -> None:
    sets = AttributeSets()
    codes = sets.encode(rows)
    size = len(sets)
    if frozen:
        sets.freeze()
    assert len(sets) == size == len({tuple(sorted(row.items())) for row in [{}, *rows]})
    assert [sets.mapping(code) for code in codes.tolist()] == rows
    matching = [
        code
        for code in range(size)
        if term.key in sets.mapping(code)
        and (not term.values or sets.mapping(code)[term.key] in term.values)
    ]
    assert sets.codes(term, size).tolist() == matching
    assert np.flatnonzero(sets.matching(term, size)).tolist() == matching
    other = AttributeSets()
    adopted = other.adopt(sets, codes)
    assert [other.mapping(code) for code in adopted.tolist()] == rows


def test_attributes_of_their_own_take_little_memory_once_frozen() -> None:
    sets = AttributeSets()
    sets.encode({"id": f"number {number}"} for number in range(20_000))
    before = sets.nbytes
    sets.freeze()
    assert sets.nbytes < 0.6 * before
    assert sets.codes(AttributeTerm("id", ["number 77"]), len(sets)).tolist() == [78]
