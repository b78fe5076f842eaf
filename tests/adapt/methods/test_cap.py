"""CAP: proxies drawn and contrasted, with and without cameras, in whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional

from adapt.data.sampler import batches
from adapt.methods.cap import Cap
from adapt.methods.method import Batch, Features
from adapt.training.config import RunConfig
from adapt.training.run import adapt
from resight.bundle.reader import open_bundle
from resight.errors import FailedPrecondition

CPU = torch.device("cpu")
MakeCrops = Callable[..., Path]
SETTINGS = {
    "method": "cap", "backbone": "timm:test_efficientnet", "init": "random", "height": 64,
    "width": 32, "pad": 2, "p": 6, "k": 4, "epochs": 3, "iterations": 3, "k1": 8, "k2": 3,
    "lr": 1e-3, "device": "cpu", "threads": 1, "extraction": "torch", "temperature": 0.07,
    "momentum": 0.2, "cap": {"inter_epoch": 1},
}  # fmt: skip


def config(**changes: object) -> RunConfig:
    return RunConfig(**(SETTINGS | changes))  # type: ignore[arg-type]


def people(identities: int = 6, each: int = 8) -> tuple[Features, NDArray[np.int32]]:
    """Tight groups of unit vectors, two cameras in turn."""
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(identities, 16)), each, axis=0)
    vectors = centres + 0.05 * random.normal(size=centres.shape)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cameras = np.arange(len(vectors), dtype=np.int32) % 2
    return Features(vectors.astype(np.float32)), cameras


def batch_of(rows: NDArray[np.int64], classes: NDArray[np.int64], epoch: int) -> Batch:
    raw = torch.randn(len(rows), 16, generator=torch.Generator().manual_seed(1))
    return Batch(
        functional.normalize(raw, dim=1),
        raw,
        torch.from_numpy(rows),
        torch.from_numpy(classes[rows]),
        epoch,
    )


def test_batches_are_drawn_by_proxy() -> None:
    features, cameras = people()
    labels = Cap(config(), cameras, CPU).prepare_epoch(features, 0)
    assert labels.draw is not None
    assert labels.count == labels.clusters == 6
    assert labels.extra["proxies"] == 12
    assert labels.extra["shared_clusters"] == 6
    drawn = next(iter(batches(labels.draw, cameras, p=3, k=4, seed=1, epoch=0)))
    for group in drawn.reshape(3, 4):
        assert len(set(labels.classes[group])) == 1
        assert len(set(cameras[group])) == 1
    by_cluster = Cap(config(cap={"draw": "cluster"}), cameras, CPU).prepare_epoch(features, 0)
    assert by_cluster.draw is None


def test_the_inter_camera_loss_begins_at_its_epoch() -> None:
    features, cameras = people()
    method = Cap(config(), cameras, CPU)
    alone = Cap(config(cap={"inter_weight": 0.0}), cameras, CPU)
    rows = np.array([0, 1, 9, 17, 30], dtype=np.int64)
    for epoch in (0, 1):
        labels = method.prepare_epoch(features, epoch)
        alone.prepare_epoch(features, epoch)
        batch = batch_of(rows, labels.classes, epoch)
        difference = float(method.loss(batch) - alone.loss(batch))
        assert (difference > 0.01) == (epoch >= 1)


@pytest.mark.parametrize("cameras", [None, np.zeros(48, dtype=np.int32)])
def test_without_cameras_or_with_one_a_proxy_is_a_cluster(
    cameras: NDArray[np.int32] | None,
) -> None:
    features, _ = people()
    labels = Cap(config(), cameras, CPU).prepare_epoch(features, 0)
    assert labels.extra["proxies"] == labels.clusters == 6
    assert labels.draw is not None
    assert np.array_equal(labels.draw, labels.classes)
    assert any("without cameras" in note for note in labels.notes) == (cameras is None)


def test_logits_name_the_cluster_and_updates_move_its_proxy() -> None:
    features, cameras = people()
    method = Cap(config(), cameras, CPU)
    labels = method.prepare_epoch(features, 0)
    rows = np.arange(48, dtype=np.int64)
    unit = torch.from_numpy(features.vectors)
    batch = Batch(unit, unit, torch.from_numpy(rows), torch.from_numpy(labels.classes), 0)
    assert torch.equal(method.logits(batch).argmax(dim=1), batch.classes)
    before = method.state_dict()["proxies"]
    assert isinstance(before, torch.Tensor)
    kept = before.clone()
    method.update(batch_of(rows[:1], labels.classes, 0))
    assert int((kept != before).any(dim=1).sum()) == 1


def test_no_cluster_and_one_cluster_are_errors() -> None:
    features, cameras = people()
    with pytest.raises(FailedPrecondition) as none:
        Cap(config(eps=0.01, min_samples=40), cameras, CPU).prepare_epoch(features, 0)
    assert none.value.reason == "NO_CLUSTERS"
    same = Features(np.repeat(features.vectors[:1], 48, axis=0))
    with pytest.raises(FailedPrecondition) as one:
        Cap(config(), cameras, CPU).prepare_epoch(same, 0)
    assert one.value.reason == "ONE_CLUSTER"


@pytest.mark.parametrize(
    ("cameras", "ignore", "words"),
    [(1, False, "one camera"), (2, True, "cap without cameras")],
)
def test_runs_with_one_camera_and_with_none(
    run: Callable[..., dict[str, Any]], cameras: int, ignore: bool, words: str
) -> None:
    settings = config(ignore_cameras=ignore, epochs=2)
    summary = run("run", settings, cameras=cameras)["summary"]
    assert len(summary["epochs"]) == 2
    for epoch in summary["epochs"]:
        assert epoch["extra"]["proxies"] == epoch["clusters"]
        assert np.isfinite(epoch["loss"])
    assert any(words in warning for warning in summary["warnings"])


def test_a_cut_run_resumes_to_the_same_end(run: Callable[..., dict[str, Any]]) -> None:
    settings = config(deterministic=True)
    whole = run("whole", settings)
    assert run("cut", settings, cut=True)["epoch"] == 1
    cut = run("cut", settings, resume=True)
    assert torch.equal(whole["labels"], cut["labels"])
    assert all(torch.equal(value, cut["model"][name]) for name, value in whole["model"].items())
    ours, theirs = ([e["extra"] for e in state["summary"]["epochs"]] for state in (whole, cut))
    assert len(ours) == 3
    assert ours == theirs


def test_a_whole_run_leaves_a_bundle(make_crops: MakeCrops, tmp_path: Path) -> None:
    outcome = adapt(make_crops(), tmp_path / "run", config(epochs=1))
    assert outcome.summary.epochs[0].extra["proxies"] > outcome.summary.epochs[0].clusters
    assert open_bundle(outcome.directory.bundle).model_version == outcome.model_version
