"""Agreement with the live encoder, within tracks and across overlapping cameras."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from adapt.export.sightings import Sightings
from adapt.gate.likeness import endorsement, likeness
from adapt.gate.observation import Observation
from adapt.gate.overlap import overlap
from adapt.gate.sample import Sample
from adapt.gate.tracklets import agreement, area, find_pairs
from adapt.gate.view import View
from tests.adapt.gate.conftest import Site, unit


def test_likeness_is_rank_biased_overlap(random_view: Callable[..., View]) -> None:
    one, other = random_view(seed=0), random_view(seed=1)
    shared = View(Observation(other.features, other.copies), one.sample, threads=1)
    a, b = one.across.indices, shared.across.indices
    depth = a.shape[1]
    most = sum(0.9**d for d in range(depth))
    expected = []
    for first, second in zip(a, b, strict=True):
        parts = [
            0.9**d * len(set(first[: d + 1]) & set(second[: d + 1])) / (d + 1) for d in range(depth)
        ]
        expected.append(sum(parts) / most)
    assert 0.05 < np.mean(expected) < 0.95
    assert likeness(one, shared) == pytest.approx(np.mean(expected))
    assert likeness(one, one) == pytest.approx(1.0)


def test_endorsement_ranks_the_others_mutual_pairs(random_view: Callable[..., View]) -> None:
    judged, other = random_view(seed=0), random_view(seed=1)
    judge = View(Observation(other.features, other.copies), judged.sample, threads=1)
    first = judged.across.indices[:, 0]
    scores = judge.features @ judge.features.T
    assert judge.cameras is not None
    expected = []
    for i, j in enumerate(first):
        if first[j] == i:
            rivals = scores[i][judge.cameras != judge.cameras[i]]
            expected.append(1 / (1 + np.sum(rivals > scores[i, j])))
    assert len(expected) > 3
    assert endorsement(judge, judged) == pytest.approx(np.mean(expected))
    assert endorsement(judged, judged) == pytest.approx(1.0)


def test_area_is_that_under_the_roc_curve() -> None:
    random = np.random.default_rng(5)
    positive, negative = random.integers(3, 9, 40) / 8.0, random.integers(0, 7, 60) / 8.0
    truth = np.repeat([1, 0], [40, 60])
    expected = roc_auc_score(truth, np.concatenate([positive, negative]))
    assert area(positive, negative) == pytest.approx(expected)


def test_tracks_agree_less_when_an_encoder_is_spoilt(site: Site) -> None:
    pairs = find_pairs(site.sample, views_overlap=True, seed=1)
    assert pairs is not None
    values = [
        agreement(site.view(site.encoder(spoilt=spoilt)), pairs) for spoilt in (0.0, 1.5, 20.0)
    ]
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(0.5, abs=0.1)


def test_too_few_tracks_give_no_pairs(random_view: Callable[..., View]) -> None:
    assert find_pairs(random_view().sample, views_overlap=True, seed=1) is None


def _passages(people: int, apart: float) -> tuple[Observation, Sample]:
    """Each person passes two cameras, ``apart`` seconds later at the second."""
    random = np.random.default_rng(2)
    looks = random.standard_normal((people, 16))
    rows = np.concatenate([looks, looks]) + 0.3 * random.standard_normal((2 * people, 16))
    moments = 100.0 * np.arange(people)
    cameras = np.repeat([0, 1], people)
    sightings = Sightings(
        cameras.astype(np.int64),
        np.full(2 * people, -1),
        np.concatenate([moments, moments + apart]),
    )
    sample = Sample(sightings, cameras.astype(np.int32), ("a", "b"), ())
    return Observation(unit(rows), unit(rows[:1])), sample


def test_overlapping_cameras_see_one_person_at_one_time() -> None:
    seen, sample = _passages(40, apart=1.0)
    assert overlap(View(seen, sample, threads=1), sample, [("a", "b")]) == pytest.approx(1.0)
    shuffled = Observation(np.random.default_rng(0).permutation(seen.features), seen.copies)
    chance = overlap(View(shuffled, sample, threads=1), sample, [("a", "b")])
    assert chance == pytest.approx(0.5, abs=0.15)
    assert overlap(View(seen, sample, threads=1), sample, [("a", "nowhere")]) is None
    late, told = _passages(40, apart=30.0)
    assert overlap(View(late, told, threads=1), told, [("a", "b")]) is None
