"""Each signal against a literal loop of its equation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.gate.contrast import contrast, distinctness
from adapt.gate.copies import recovery, steadiness
from adapt.gate.distribution import crowding, effective_rank, hubness, orphans, uniformity
from adapt.gate.grouping import clustered, silhouette, spanning
from adapt.gate.mixing import leakage, mixing
from adapt.gate.reciprocity import reciprocity
from adapt.gate.signals import HIGHER_IS_BETTER, MEASUREMENTS, measure
from adapt.gate.stability import kept_company, stability
from adapt.gate.view import View, centred
from tests.adapt.gate.conftest import Site

MakeView = Callable[..., View]


def _products(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    return wide @ wide.T


def _across(view: View, rows: NDArray[np.floating], k: int) -> list[list[int]]:
    """The k nearest at other cameras (of all, without cameras), by sorting."""
    scores = _products(rows)
    lists = []
    for i in range(len(rows)):
        others = [
            j
            for j in range(len(rows))
            if j != i and (view.cameras is None or view.cameras[j] != view.cameras[i])
        ]
        lists.append(sorted(others, key=lambda j: (-scores[i, j], j))[:k])
    return lists


def test_reciprocity_is_the_share_of_mutual_pairs(random_view: MakeView) -> None:
    view = random_view()
    lists = _across(view, centred(view.features, view.cameras), 5)
    pairs = [(i, j) for i, found in enumerate(lists) for j in found]
    mutual = sum(i in lists[j] for i, j in pairs)
    assert 0 < mutual < len(pairs)
    assert reciprocity(view) == pytest.approx(mutual / len(pairs))


@pytest.mark.parametrize("cameras", [1, 3])
def test_contrast_is_standardised_over_pairs_across_cameras(
    random_view: MakeView, cameras: int
) -> None:
    view = random_view(cameras=cameras)
    scores = _products(view.features)
    lists = _across(view, view.features, 10)
    pairs = [
        scores[i, j]
        for i in range(len(view))
        for j in range(len(view))
        if i != j and (view.cameras is None or view.cameras[i] != view.cameras[j])
    ]
    first = np.mean([scores[i, found[0]] for i, found in enumerate(lists)])
    assert contrast(view) == pytest.approx((first - np.mean(pairs)) / np.std(pairs), rel=1e-4)
    ratios = [(1 - scores[i, f[0]]) / (1 - scores[i, f[9]]) for i, f in enumerate(lists)]
    assert distinctness(view) == pytest.approx(1 - np.mean(ratios), abs=1e-5)


@pytest.mark.parametrize("cameras", [1, 3])
def test_copies_are_ranked_against_all_and_keep_neighbours(
    random_view: MakeView, cameras: int
) -> None:
    view = random_view(cameras=cameras)
    scores = view.copies.astype(np.float64) @ view.features.T.astype(np.float64)
    ranks = [1 + sum(row > row[i]) for i, row in enumerate(scores)]
    assert recovery(view) == pytest.approx(np.mean([1 / rank for rank in ranks]))
    lists = _across(view, view.features, 10)
    shares = []
    for i, row in enumerate(scores):
        others = [
            j
            for j in range(len(view))
            if j != i and (view.cameras is None or view.cameras[j] != view.cameras[i])
        ]
        found = sorted(others, key=lambda j: -row[j])[:10]
        shares.append(len(set(found) & set(lists[i])) / 10)
    assert steadiness(view) == pytest.approx(np.mean(shares))


def test_occurrence_counts_who_is_chosen(random_view: MakeView) -> None:
    view = random_view()
    counts = np.zeros(len(view))
    for found in _across(view, view.features, 10):
        counts[found] += 1
    assert orphans(view) == np.mean(counts == 0)
    moment = np.mean((counts - counts.mean()) ** 3) / np.std(counts) ** 3
    assert hubness(view) == pytest.approx(moment)


def test_distribution_follows_its_definitions(random_view: MakeView) -> None:
    view = random_view()
    scores = _products(view.features)
    off = scores[~np.eye(len(view), dtype=bool)]
    assert crowding(view) == pytest.approx(off.mean(), abs=1e-6)
    assert uniformity(view) == pytest.approx(np.log(np.mean(np.exp(-2 * (2 - 2 * off)))), abs=1e-5)
    shares = np.linalg.svd(view.features - view.features.mean(axis=0))[1].astype(np.float64) ** 2
    shares /= shares.sum()
    expected = np.exp(-np.sum(shares * np.log(shares)))
    assert effective_rank(view) == pytest.approx(expected, rel=1e-4)


def test_cameras_share_of_the_variance_is_that_of_a_regression(random_view: MakeView) -> None:
    view = random_view()
    assert view.cameras is not None
    design = np.eye(3)[view.cameras]
    rows = view.features.astype(np.float64)
    fitted = design @ np.linalg.lstsq(design, rows, rcond=None)[0]
    total = np.sum((rows - rows.mean(axis=0)) ** 2)
    assert leakage(view) == pytest.approx(1 - np.sum((rows - fitted) ** 2) / total, abs=1e-6)


def test_a_camera_written_into_the_embedding_shows(site: Site) -> None:
    fair, biased = (site.view(site.encoder(cast=cast)) for cast in (0.0, 1.5))
    fair_mixing, biased_mixing = mixing(fair), mixing(biased)
    fair_leakage, biased_leakage = leakage(fair), leakage(biased)
    assert fair_mixing is not None
    assert biased_mixing is not None
    assert fair_mixing > biased_mixing + 0.2
    assert fair_leakage is not None
    assert biased_leakage is not None
    assert biased_leakage > fair_leakage + 0.1


def test_company_is_compared_crop_by_crop() -> None:
    random = np.random.default_rng(3)
    one, other = random.integers(-1, 4, (2, 40)).astype(np.int32)
    expected = []
    for i in range(40):
        mates = [
            {j for j in range(40) if j != i and labels[i] >= 0 and labels[j] == labels[i]}
            for labels in (one, other)
        ]
        union = mates[0] | mates[1]
        expected.append(len(mates[0] & mates[1]) / len(union) if union else 0.0)
    assert kept_company(one, other) == pytest.approx(np.mean(expected))
    alone = np.full(5, -1, dtype=np.int32)
    assert kept_company(alone, alone) == 0.0


def test_spanning_counts_crops_in_clusters_of_several_cameras(site: Site) -> None:
    view = site.view(site.encoder(noise=0.5))
    labels = view.clusters.labels
    assert view.cameras is not None
    inside = np.flatnonzero(labels >= 0)
    mixed = [len(set(view.cameras[labels == labels[i]])) > 1 for i in inside]
    assert spanning(view) == pytest.approx(np.mean(mixed))
    assert clustered(view) == pytest.approx(len(inside) / len(view))


@pytest.mark.parametrize("name", ["silhouette", "stability", "steadiness"])
@pytest.mark.parametrize("with_cameras", [True, False])
def test_a_worse_encoder_scores_worse(
    site: Site, blind_site: Site, name: str, with_cameras: bool
) -> None:
    where = site if with_cameras else blind_site
    values = [
        MEASUREMENTS[name](where.view(where.encoder(spoilt=spoilt))) for spoilt in (0.0, 0.6, 1.2)
    ]
    assert all(value is not None for value in values)
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert values[0] - values[2] > 0.05  # type: ignore[operator]


def test_without_cameras_what_needs_them_is_left_out(blind_site: Site) -> None:
    figures = measure(blind_site.view(blind_site.encoder()))
    missing = {name for name, value in figures.items() if value is None}
    assert missing == {"spanning", "reciprocity", "mixing", "leakage"}
    assert HIGHER_IS_BETTER.keys() == figures.keys()


def test_one_point_for_all_measures_nothing_and_does_not_fail(site: Site) -> None:
    encoder = site.encoder()
    same = np.tile(encoder.features[:1], (len(encoder.features), 1))
    view = site.view(type(encoder)(same, same[: len(encoder.copies)]))
    assert crowding(view) == pytest.approx(1.0)
    assert effective_rank(view) == 1.0
    assert contrast(view) == 0.0
    assert silhouette(view) is None or silhouette(view) <= 0.0  # type: ignore[operator]
    assert 0.0 <= stability(view) <= 1.0
