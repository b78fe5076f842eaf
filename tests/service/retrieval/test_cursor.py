"""Pages, against the whole ranking cut by hand, while the gallery changes."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.errors import FailedPrecondition, InvalidArgument
from service.domain.ports import IndexHits
from service.domain.query import SearchMode
from service.retrieval.cursor import Cursor, decode_cursor, digest, encode_cursor, following

NOTHING = np.empty((0, 0), np.float32)
QUERY = digest(["site", 1.5, None])


class Rows:
    """A gallery as a dictionary of scores."""

    def __init__(self, scores: dict[int, float]) -> None:
        self.scores = scores

    def best(self, count: int) -> IndexHits:
        ranked = sorted((-np.float32(s), UUID(int=key)) for key, s in self.scores.items())[:count]
        scores = np.array([-score for score, _ in ranked], np.float32)
        ids = [key for _, key in ranked]
        return IndexHits(ids, scores, SearchMode.EXACT_SCAN, len(self.scores), len(self.scores))


def walk(rows: Rows, size: int, *, between: Callable[[], object] = lambda: None) -> list[int]:
    cursor, found = None, []
    while True:
        page = following(rows.best, cursor, size, deepest=1000)
        found += [key.int for key in page.hits.ids]
        assert len(page.hits.ids) <= size
        if not page.more:
            return found
        assert len(page.hits.ids) == size
        made = Cursor(float(page.hits.scores[-1]), page.hits.ids[-1], len(found), NOTHING)
        token = encode_cursor(made, query=QUERY, model_version="m")
        cursor = decode_cursor(token, query=QUERY, model_version="m")
        between()


# Few scores, so that ties straddle pages.
gallery = st.dictionaries(st.integers(0, 200), st.sampled_from([-0.5, 0.1, 0.2, 0.9]), max_size=40)


@given(gallery, st.integers(1, 9))
def test_pages_together_are_the_ranking(scores: dict[int, float], size: int) -> None:
    rows = Rows(scores)
    assert walk(rows, size) == [key.int for key in rows.best(1000).ids]


@given(gallery, st.integers(1, 7), st.data())
def test_rows_that_stay_come_once_whatever_comes_and_goes(
    scores: dict[int, float], size: int, data: st.DataObject
) -> None:
    rows = Rows(dict(scores))
    removed: set[int] = set()
    known: set[int] = set()

    def change() -> None:
        for key in data.draw(st.sets(st.sampled_from(sorted(scores)), max_size=4)):
            rows.scores.pop(key, None)
            removed.add(key)
        if len(rows.scores) < 60:
            added = data.draw(
                st.dictionaries(
                    st.integers(1000, 2000), st.sampled_from([-0.6, 0.2, 1.0]), max_size=5
                )
            )
            # An id has one score for ever.
            rows.scores |= {key: score for key, score in added.items() if key not in known}
            known.update(added)

    found = walk(rows, size, between=change)
    assert len(found) == len(set(found))
    order = [key.int for key in Rows(scores).best(1000).ids if key.int not in removed]
    assert [key for key in found if key in order] == order


def test_a_token_keeps_what_it_was_made_of() -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    cursor = Cursor(float(np.float32(0.1)), UUID(int=7), 12, vectors)
    token = encode_cursor(cursor, query=QUERY, model_version="m")
    back = decode_cursor(token, query=QUERY, model_version="m")
    assert back is not None
    assert (back.score, back.crop_id, back.given) == (cursor.score, cursor.crop_id, 12)
    np.testing.assert_array_equal(back.vectors, vectors)
    assert decode_cursor("", query=QUERY, model_version="m") is None


def test_a_token_of_something_else_is_refused_by_name() -> None:
    token = encode_cursor(Cursor(0.5, UUID(int=1), 1, NOTHING), query=QUERY, model_version="m")
    with pytest.raises(InvalidArgument, match="another query") as caught:
        decode_cursor(token, query=digest(["other"]), model_version="m")
    assert (caught.value.field, caught.value.reason) == ("page_token", "CURSOR_OF_ANOTHER_QUERY")
    with pytest.raises(FailedPrecondition, match="another encoder") as failed:
        decode_cursor(token, query=QUERY, model_version="n")
    assert failed.value.reason == "MODEL_VERSION_MISMATCH"


@given(st.text(max_size=40))
def test_text_is_no_token(text: str) -> None:
    if text:
        with pytest.raises(InvalidArgument, match="page_token is not one"):
            decode_cursor(text, query=QUERY, model_version="m")


def test_a_changed_or_cut_token_is_none() -> None:
    token = encode_cursor(Cursor(0.5, UUID(int=1), 1, NOTHING), query=QUERY, model_version="m")
    other = "A" if token[20] != "A" else "B"
    for wrong in (token[:20] + other + token[21:], token[:-4], token + "AAAA", "x" * (1 << 23)):
        with pytest.raises(InvalidArgument, match="page_token is not one"):
            decode_cursor(wrong, query=QUERY, model_version="m")


def test_there_is_a_deepest_page() -> None:
    rows = Rows(dict.fromkeys(range(30), 0.5))
    assert following(rows.best, None, 10, deepest=10).more
    at = Cursor(0.5, UUID(int=9), 10, NOTHING)
    with pytest.raises(InvalidArgument, match=r"limits\.max_ranked"):
        following(rows.best, at, 10, deepest=19)


@pytest.mark.parametrize("score", [-0.9, float("nan")])
def test_a_token_that_says_too_little_was_given_is_not_followed_to_the_end(score: float) -> None:
    """It may be made up, and each step would rank more of the gallery."""
    rows = Rows(dict.fromkeys(range(1000), 0.5))
    asked: list[int] = []

    def best(count: int) -> IndexHits:
        asked.append(count)
        return rows.best(count)

    with pytest.raises(InvalidArgument, match=r"limits\.max_ranked") as caught:
        following(best, Cursor(score, UUID(int=9), 1, NOTHING), 10, deepest=50)
    assert caught.value.field == "page_token"
    assert max(asked) <= 101


def test_rows_that_come_in_before_a_page_move_it_down() -> None:
    rows = Rows(dict.fromkeys(range(40), 0.5) | {1000 + n: 0.9 for n in range(60)})
    page = following(rows.best, Cursor(0.5, UUID(int=9), 10, NOTHING), 10, deepest=50)
    assert [key.int for key in page.hits.ids] == list(range(10, 20))
