"""CALR's second stage on given features: labels, weights and losses as literal loops have them."""

from __future__ import annotations

import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from adapt.clustering import map_equation
from adapt.clustering.neighbours import Neighbours, nearest
from adapt.methods.calr import Calr
from adapt.methods.camera_alignment import camera_loss
from adapt.methods.grouping import group
from adapt.methods.method import Batch, Features
from adapt.methods.pivots import pivot_scores, pivots
from adapt.training.config import RunConfig
from resight.errors import FailedPrecondition

CPU = torch.device("cpu")
PEOPLE, SHOTS, DIMENSION = 14, 8, 32


def config(**changes: object) -> RunConfig:
    calr = {"entropy_epoch": 1, "camera_epochs": 1, "min_cosine": 0.2}
    calr.update(changes.pop("calr", {}))  # type: ignore[call-overload]
    values = {"method": "calr", "k1": 12, "k2": 4, "eps": 0.6, "threads": 1, "epochs": 4,
              "p": 4, "calr": calr}  # fmt: skip
    return RunConfig(**(values | changes))  # type: ignore[arg-type]


def scene(cameras: int = 3, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Features (N, D) with a shift by camera, and cameras (N,), not evenly spread."""
    random = np.random.default_rng(seed)
    codes = random.integers(0, cameras, PEOPLE * SHOTS).astype(np.int32)
    codes[: 2 * SHOTS] = 0  # two people whom one camera alone has seen
    codes[-1] = cameras - 1
    rows = np.repeat(random.standard_normal((PEOPLE, DIMENSION)), SHOTS, axis=0)
    rows = rows + 0.5 * random.standard_normal((cameras, DIMENSION))[codes]
    rows += 0.6 * random.standard_normal(rows.shape)
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32), codes


def local_labels(codes: NDArray[np.int32]) -> NDArray[np.int64]:
    """Each person's shots in a camera, cut in two in places."""
    random = np.random.default_rng(3)
    people = np.arange(len(codes)) // SHOTS
    return (codes.astype(np.int64) * PEOPLE + people) * 2 + random.integers(0, 2, len(codes))


def ready(settings: RunConfig, cameras: int = 3) -> tuple[Calr, Features, NDArray[np.int32]]:
    vectors, codes = scene(cameras)
    method = Calr(settings, codes, CPU)
    method.local = local_labels(codes)
    return method, Features(vectors), codes


def batch_of(features: Features, labels: NDArray[np.int64], rows: NDArray[np.int64], epoch: int
             ) -> tuple[Batch, Tensor]:  # fmt: skip
    vectors = torch.from_numpy(features.vectors[rows]).requires_grad_()
    unit = functional.normalize(vectors, dim=1)
    classes = torch.from_numpy(labels[rows])
    return Batch(unit, vectors, torch.from_numpy(rows), classes, epoch), vectors


@pytest.mark.parametrize("pivot", ["first_above_mean_last", "best"])
def test_labels_are_refined_as_a_loop_over_clusters_would(pivot: str) -> None:
    settings = config(calr={"pivot": pivot})
    method, features, codes = ready(settings)
    found = group(features.vectors, settings, codes)
    near = nearest(features.vectors, settings.calr.neighbours)
    assert isinstance(near, Neighbours)
    scores = pivot_scores(near, settings.calr.min_cosine)
    chosen = pivots(scores, found.labels.astype(np.int64), found.clusters, settings.calr.pivot)
    # With k1=12 the lists of the clustering are too short for 15 neighbours: they are searched for.
    expected = found.labels.astype(np.int64)
    local = local_labels(codes)
    for cluster in range(found.clusters):
        p = chosen[cluster]
        for i in range(len(codes)):
            if p >= 0 and found.labels[i] == cluster and codes[i] == codes[p]:
                expected[i] = cluster if local[i] == local[p] else -1
    given = method.prepare_epoch(features, 0)
    assert given.classes.tolist() == expected.tolist()
    assert given.extra["refined"] == np.count_nonzero(expected != found.labels) > 0
    assert given.extra["pivots"] == np.count_nonzero(chosen >= 0)
    sizes = np.bincount(expected[expected >= 0], minlength=found.clusters)
    assert given.count == found.clusters
    assert given.clusters == sum(size > 1 for size in sizes)
    assert given.outliers == len(codes) - sum(size for size in sizes if size > 1)
    assert set(given.classes.tolist()) - {-1} == set(range(found.clusters))


def test_a_class_that_refinement_leaves_a_single_crop_is_no_cluster() -> None:
    method, features, codes = ready(config(calr={"pivot": "best"}), cameras=1)
    method.local = np.arange(len(codes))  # each crop by itself: a pivot stays alone
    given = method.prepare_epoch(features, 0)
    assert given.count > 0
    assert np.bincount(given.classes[given.classes >= 0]).tolist() == [1] * given.count
    assert (given.clusters, given.outliers, given.largest) == (0, len(codes), 1)


def test_neighbours_of_the_clustering_serve_where_they_suffice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import adapt.methods.calr as calr

    method, features, _ = ready(config(k1=20))
    searched = method.prepare_epoch(features, 0).classes
    monkeypatch.setattr(calr, "nearest", None)
    assert np.array_equal(method.prepare_epoch(features, 0).classes, searched)


def test_ca_jaccard_is_refined_too() -> None:
    method, features, _ = ready(config(distance="ca-jaccard", k1_inter=10))
    assert method.prepare_epoch(features, 0).extra["pivots"] > 0


def test_pace_drops_some_of_what_the_constant_one_drops() -> None:
    constant, features, _ = ready(config(epochs=2))
    paced, _, _ = ready(config(epochs=2, calr={"pace": "cosine"}))
    assert np.array_equal(
        constant.prepare_epoch(features, 0).classes, paced.prepare_epoch(features, 0).classes
    )
    late = [method.prepare_epoch(features, 2).classes for method in (constant, paced)]
    dropped = [set(np.flatnonzero(labels < 0).tolist()) for labels in late]
    assert dropped[1] < dropped[0]
    assert np.array_equal(paced.prepare_epoch(features, 2).classes, late[1])


def test_without_refinement_local_clusters_are_not_looked_at() -> None:
    settings = config(calr={"refine": False})
    method, features, codes = ready(settings)
    method.local = None
    labels = group(features.vectors, settings, codes).labels
    assert np.array_equal(method.prepare_epoch(features, 0).classes, labels)


def test_refinement_without_local_clusters_is_a_mistake_of_the_caller() -> None:
    method, features, _ = ready(config())
    method.local = None
    with pytest.raises(ValueError, match="local clusters"):
        method.prepare_epoch(features, 0)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_loss_is_the_mean_weighted_by_camera_entropy(weighted: bool) -> None:
    method, features, codes = ready(config(temperature=0.5, calr={"entropy_weights": weighted}))
    labels = method.prepare_epoch(features, 1).classes
    centroids = np.stack([
        features.vectors[labels == c].mean(axis=0) for c in range(labels.max() + 1)
    ])  # fmt: skip
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    rows = np.flatnonzero(labels >= 0)[::5]
    total, weights = 0.0, 0.0
    for i in rows:
        mates = codes[labels == labels[i]]
        shares = [np.mean(mates == camera) for camera in set(mates.tolist())]
        entropy = -sum(share * math.log(share) for share in shares)
        weight = max(math.log(1 + entropy), 1e-3) if weighted else 1.0
        scores = centroids @ features.vectors[i] / 0.5
        total += weight * (np.logaddexp.reduce(scores) - scores[labels[i]])
        weights += weight
    batch, _ = batch_of(features, labels, rows, epoch=1)
    assert method.loss(batch).item() == pytest.approx(total / weights, rel=1e-4)


def test_camera_alignment_is_added_in_the_first_epochs_and_reversed() -> None:
    settings = config(calr={"camera_loss": "paper", "camera_weight": 0.7, "entropy_epoch": 9})
    method, features, codes = ready(settings)
    labels = method.prepare_epoch(features, 0).classes
    head = method.heads
    assert head is not None
    head.eval()
    rows = np.flatnonzero(labels >= 0)
    gradients = []
    for epoch in (0, 1):
        batch, vectors = batch_of(features, labels, rows, epoch)
        loss = method.loss(batch)
        torch.autograd.backward(loss)
        assert vectors.grad is not None
        gradients.append((loss.item(), vectors.grad))
    batch, vectors = batch_of(features, labels, rows, 0)
    alone = camera_loss(head(batch.features), torch.from_numpy(codes[rows]).long(), "paper")
    torch.autograd.backward(alone)
    assert vectors.grad is not None
    assert gradients[0][0] == pytest.approx(gradients[1][0] + 0.7 * alone.item(), rel=1e-5)
    # The head's own reversal is in both, so the difference is it: the features climb its loss.
    torch.testing.assert_close(gradients[0][1] - gradients[1][1], 0.7 * vectors.grad)
    with torch.no_grad():
        moved = functional.normalize(vectors - 0.1 * vectors.grad, dim=1)
        climbed = camera_loss(head(moved), torch.from_numpy(codes[rows]).long(), "paper")
    assert climbed > alone


def test_alignment_can_be_switched_off() -> None:
    method, features, _ = ready(config(calr={"camera_epochs": 0}))
    method.prepare_epoch(features, 0)
    assert method.heads is None


@pytest.mark.parametrize("loss", ["paper", "as_released"])
@pytest.mark.parametrize("cameras", [1, 3])
def test_never_nan_with_clusters_of_one_camera(cameras: int, loss: str) -> None:
    settings = config(calr={"entropy_epoch": 0, "entropy_floor": 1e-6, "camera_loss": loss})
    method, features, _ = ready(settings, cameras)
    given = method.prepare_epoch(features, 0)
    assert given.extra["single_camera_clusters"] > 0
    single = [c for c in range(given.count) if len(set(method._cameras[given.classes == c])) == 1]
    rows = np.flatnonzero(np.isin(given.classes, single))
    batch, vectors = batch_of(features, given.classes, rows, epoch=0)
    value = method.loss(batch)
    torch.autograd.backward(value)
    assert math.isfinite(value.item())
    assert vectors.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert (method.heads is None) == (cameras == 1)


def test_the_camera_head_survives_a_restart() -> None:
    method, features, codes = ready(config())
    method.prepare_epoch(features, 0)
    again = Calr(config(), codes, CPU)
    again.load_state_dict(method.state_dict())
    assert method.heads is not None
    assert again.heads is not None
    again.heads.load_state_dict(method.heads.state_dict())
    fresh = Calr(config(), codes, CPU)
    fresh.load_state_dict(Calr(config(), codes, CPU).state_dict())
    assert fresh.heads is None


def test_cameras_are_needed() -> None:
    with pytest.raises(FailedPrecondition, match="camera of every crop") as caught:
        Calr(config(), None, CPU)
    assert caught.value.reason == "NO_CAMERAS"
    with pytest.raises(ValidationError, match="ignore_cameras"):
        config(ignore_cameras=True)


@pytest.mark.parametrize(
    ("eps", "min_samples", "reason"), [(1e-4, 30, "NO_CLUSTERS"), (0.999, 2, "ONE_CLUSTER")]
)
def test_nothing_to_contrast_is_an_error(eps: float, min_samples: int, reason: str) -> None:
    method, features, _ = ready(config(eps=eps, min_samples=min_samples))
    with pytest.raises(FailedPrecondition) as caught:
        method.prepare_epoch(features, 0)
    assert (caught.value.reason, caught.value.field) == (reason, "eps")


def test_infomap_that_is_not_installed_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_equation, "find_spec", lambda _name: None)
    with pytest.raises(FailedPrecondition, match=r"resight\[infomap\]"):
        ready(config(calr={"clustering": "infomap"}))


@pytest.mark.skipif(find_spec("infomap") is None, reason="extra infomap")
def test_infomap_clusters_people() -> None:
    method, features, _ = ready(config(calr={"clustering": "infomap", "refine": False}))
    given = method.prepare_epoch(features, 0)
    people = np.arange(PEOPLE * SHOTS) // SHOTS
    pure = [
        np.bincount(people[given.classes == cluster]).max() / (given.classes == cluster).sum()
        for cluster in range(given.count)
    ]
    assert np.mean(pure) > 0.9
    method, features, _ = ready(config(calr={"clustering": "infomap", "min_cosine": 0.999}))
    with pytest.raises(FailedPrecondition, match=r"calr.min_cosine") as caught:
        method.prepare_epoch(features, 0)
    assert caught.value.reason == "NO_CLUSTERS"
