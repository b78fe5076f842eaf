"""Rank agreement against a literal average over every way to break ties, and against scipy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from resight.bundle.rank_agreement import Embedded, RankBounds, rank_agreement
from resight.errors import InvalidArgument, Refused


def unit(values: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float64)


def cloud(seed: int, count: int, width: int = 8) -> NDArray[np.float64]:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def from_scores(scores: NDArray[np.floating]) -> Embedded:
    """Queries along the axes, so that the scores are exactly these."""
    return Embedded(np.eye(len(scores)), scores.T)


def orders(scores: NDArray[np.floating]) -> Iterator[tuple[int, ...]]:
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            yield order


def membership(scores: NDArray[np.floating], depth: int) -> NDArray[np.float64]:
    """Share of tie-breakings with each crop among the first ``depth``, by enumeration."""
    counts = np.zeros(len(scores))
    total = 0
    for order in orders(scores):
        counts[list(order[:depth])] += 1
        total += 1
    return counts / total


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    st.lists(st.integers(0, 3), min_size=5, max_size=5),
    st.integers(1, 4),
)
def test_overlap_is_the_mean_over_all_ways_to_break_ties(
    left: list[int], right: list[int], depth: int
) -> None:
    s, t = np.array(left) / 4, np.array(right) / 4
    found = rank_agreement(from_scores(s[None]), from_scores(t[None]), depth=depth)
    for figure, places in ((found.overlap, depth), (found.first, 1)):
        expected = np.minimum(membership(s, places), membership(t, places)).sum() / places
        assert figure == pytest.approx(expected, abs=1e-12)


def test_correlation_is_spearmans_over_the_nearest() -> None:
    reference = Embedded(cloud(0, 30), cloud(1, 300))
    other = Embedded(cloud(0, 30), unit(reference.gallery + 0.4 * cloud(2, 300)))
    found = rank_agreement(reference, other, nearest=50)
    expected = []
    for query in range(30):
        s = reference.gallery @ reference.queries[query]
        t = other.gallery @ other.queries[query]
        best = np.argsort(-s)[:50]
        expected.append(scipy.stats.spearmanr(s[best], t[best]).statistic)
    assert found.correlation == pytest.approx(np.mean(expected), abs=1e-9)
    assert 0.2 < found.correlation < 0.95


def test_correlation_with_ties_is_spearmans() -> None:
    rng = np.random.default_rng(3)
    s, t = rng.integers(0, 6, 40) / 8, rng.integers(0, 6, 40) / 8
    found = rank_agreement(from_scores(s[None]), from_scores(t[None]))
    expected = scipy.stats.spearmanr(s, t).statistic
    assert found.correlation == pytest.approx(expected, abs=1e-9)


def test_equal_rankings_agree_whatever_their_ties_and_scale() -> None:
    embedded = Embedded(cloud(0, 20), np.repeat(cloud(1, 12), 5, axis=0))
    rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(8, 8)))[0]
    turned = Embedded(embedded.queries @ rotation, embedded.gallery @ rotation)
    for other in (embedded, turned):
        found = rank_agreement(embedded, other)
        assert (found.overlap, found.first) == pytest.approx((1, 1))
        assert found.correlation == pytest.approx(1)


def test_a_collapsed_encoder_gets_what_guessing_gets() -> None:
    reference = Embedded(cloud(0, 50), cloud(1, 200))
    collapsed = Embedded(np.ones((50, 1)), np.ones((200, 1)))
    found = rank_agreement(reference, collapsed)
    assert found.overlap == pytest.approx(10 / 200)
    assert found.first == pytest.approx(1 / 200)
    assert found.correlation == 0


def test_widths_may_differ_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = Embedded(cloud(0, 40), cloud(1, 120))
    lift = np.linalg.qr(np.random.default_rng(4).normal(size=(16, 8)))[0].T
    other = Embedded(reference.queries @ lift, unit(reference.gallery @ lift + 0.1))
    whole = rank_agreement(reference, other)
    monkeypatch.setattr("resight.bundle.rank_agreement._BLOCK_CELLS", 500)
    assert rank_agreement(reference, other) == whole


def test_the_querys_own_group_is_left_out() -> None:
    reference = Embedded(cloud(0, 6), np.concatenate([cloud(0, 6), cloud(1, 30)]))
    spoilt = reference.gallery.copy()
    spoilt[:6] = -spoilt[:6]  # each query's own crop goes from first to last
    other = Embedded(reference.queries, spoilt)
    groups = np.arange(36)
    assert rank_agreement(reference, other).first == 0
    gallery_groups = np.where(groups < 6, 0, groups)
    kept = rank_agreement(
        reference, other, query_groups=np.zeros(6, int), gallery_groups=gallery_groups
    )
    assert (kept.overlap, kept.first, kept.correlation) == pytest.approx((1, 1, 1))


def test_falling_short_is_refused_with_the_margin() -> None:
    reference = Embedded(cloud(0, 40), cloud(1, 200))
    other = Embedded(cloud(0, 40), unit(reference.gallery + 0.3 * cloud(2, 200)))
    found = rank_agreement(reference, other)
    entry = found.admit("x.onnx", RankBounds(found.overlap, found.correlation))
    assert (entry.path, entry.queries, entry.gallery, entry.depth) == ("x.onnx", 40, 200, 10)
    assert entry.min_overlap == entry.overlap
    with pytest.raises(Refused, match=r"top-10 overlap 0\.\d+ is 0\.0100 below") as caught:
        found.admit("x.onnx", RankBounds(found.overlap + 0.01, found.correlation))
    assert "correlation" not in caught.value.message
    with pytest.raises(Refused, match=r"rank correlation 0\.\d+ is 0\.2000 below"):
        found.admit("x.onnx", RankBounds(0, found.correlation + 0.2))


def test_what_does_not_fit_is_said() -> None:
    good = Embedded(cloud(0, 4), cloud(1, 20))
    with pytest.raises(InvalidArgument, match="do not fit"):
        rank_agreement(good, Embedded(cloud(0, 4), cloud(1, 19)))
    with pytest.raises(InvalidArgument, match="fewer than 10"):
        rank_agreement(Embedded(cloud(0, 4), cloud(1, 9)), Embedded(cloud(0, 4), cloud(1, 9)))
    broken = good.gallery.copy()
    broken[3] = np.nan
    with pytest.raises(InvalidArgument, match="not finite"):
        rank_agreement(good, Embedded(good.queries, broken))
    with pytest.raises(InvalidArgument, match="no query"):
        rank_agreement(
            Embedded(cloud(0, 4)[:0], good.gallery), Embedded(cloud(0, 4)[:0], good.gallery)
        )
