"""PPLR: its total loss, its ablations, its heads, and whole runs whose export has no parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from adapt.backbones.build import build_embedder
from adapt.export.graph import EncoderGraph
from adapt.memory.proxies import CameraProxies
from adapt.memory.static_proxies import StaticProxies
from adapt.methods import pplr
from adapt.methods.agreement import cross_agreement
from adapt.methods.method import Batch, Features
from adapt.methods.part_heads import stripes
from adapt.methods.pplr import Pplr
from adapt.methods.refinement import agreement_smoothing, guided_refinement
from adapt.methods.triplet import soft_triplet
from adapt.training.config import RunConfig
from adapt.training.ranks import Ranks
from adapt.training.run import adapt
from resight.bundle.reader import open_bundle
from resight.errors import FailedPrecondition

T = TypeVar("T")
CPU = torch.device("cpu")
MakeCrops = Callable[..., Path]
CAMERAS = np.arange(48, dtype=np.int32) % 2
SETTINGS = {
    "method": "pplr", "backbone": "osnet_x0_25", "init": "random", "height": 64, "width": 32,
    "pad": 2, "p": 6, "k": 4, "epochs": 3, "iterations": 3, "k1": 8, "k2": 3, "lr": 1e-3,
    "device": "cpu", "threads": 1, "extraction": "torch", "temperature": 0.07,
    "pplr": {"aals_epoch": 1},
}  # fmt: skip


def config(**changes: object) -> RunConfig:
    return RunConfig(**(SETTINGS | changes))  # type: ignore[arg-type]


def maps(rows: int = 48, seed: int = 0) -> Tensor:
    """(rows, 7, 8, 4) feature maps of six people."""
    random = torch.Generator().manual_seed(seed)
    people = torch.randn(6, 7, 8, 1, generator=torch.Generator().manual_seed(42))
    noise = torch.randn(rows, 7, 8, 4, generator=random)
    return people.repeat_interleave(8, dim=0)[:rows] + 0.3 * noise


def extracted(method: Pplr) -> Features:
    """As extraction would: the whole and, under inference mode, the parts."""
    with torch.inference_mode():
        seen = maps()
        whole = functional.normalize(seen.mean(dim=(2, 3)), dim=1).numpy()
        if not method.has_parts:
            return Features(whole)
        return Features(whole, functional.normalize(method.parts(seen), dim=2).numpy())


ROWS = np.array([0, 1, 8, 9, 17, 18, 40, 41, 3, 30])


def seen_maps() -> Tensor:
    return maps(seed=3)[ROWS]


def batch_of(labels: NDArray[np.int64], epoch: int) -> Batch:
    rows, seen = ROWS, seen_maps()
    raw = seen.mean(dim=(2, 3)) * 4
    return Batch(
        functional.normalize(raw, dim=1),
        raw,
        torch.from_numpy(rows),
        torch.from_numpy(labels[rows]),
        epoch,
        stripes(seen, 3),
    )


def prepared(
    cameras: NDArray[np.int32] | None = CAMERAS, epoch: int = 0, **changes: object
) -> tuple[Pplr, NDArray[np.int64], Features]:
    method = Pplr(config(**changes), cameras, CPU)
    features = extracted(method)
    labels = method.prepare_epoch(features, epoch)
    assert labels.clusters == 6
    assert method.heads is not None
    method.heads.train()
    return method, labels.classes, features


def test_classifier_rows_are_the_normalised_centroids_of_each_space() -> None:
    method, classes, features = prepared()
    assert method.heads is not None
    assert features.parts is not None
    spaces = [features.vectors, *np.moveaxis(features.parts, 1, 0)]
    assert len(method.heads.rows) == 4
    for rows, space in zip(method.heads.rows, spaces, strict=True):
        assert rows.shape == (6, space.shape[1])
        assert rows.requires_grad
        for cluster in range(6):
            mean = space[classes == cluster].mean(axis=0)
            expected = mean / np.linalg.norm(mean)
            np.testing.assert_allclose(rows[cluster].detach(), expected, rtol=1e-5, atol=1e-6)


class Counting(Ranks):
    """Notes the shapes of what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, ...]] = []

    def gather(self, share: Tensor) -> Tensor:
        self.sent.append(tuple(share.shape))
        return share


@pytest.mark.parametrize("changes", [{}, {"teacher": {"weight": 0.5}}, {"pplr": {"parts": 0}}])
def test_no_map_is_sent_between_ranks(
    run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    ranks = Counting()
    monkeypatch.setattr("adapt.training.step.current", lambda: ranks)
    run("run", config(epochs=1, iterations=1, **changes))
    stripes_sent = [shape for shape in ranks.sent if len(shape) > 2]
    channels = 128  # of the last maps of OSNet x0.25
    assert stripes_sent == ([] if "pplr" in changes else [(24, 3, channels)])
    assert [shape for shape in ranks.sent if len(shape) == 2] == [(24, 512)] * (
        1 + ("teacher" in changes)
    )


class Follower(Ranks):
    """A rank that is given what the first one computes."""

    def once(self, compute: Callable[[], T]) -> T:  # noqa: ARG002
        return torch.full((48, 3), 0.25)  # type: ignore[return-value]


def test_agreement_is_the_first_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    method = Pplr(config(), CAMERAS, CPU)
    monkeypatch.setattr(pplr, "current", Follower)
    monkeypatch.setattr(pplr, "cross_agreement", None)
    given = method.prepare_epoch(extracted(method), 0)
    assert given.extra["cross_agreement"] == 0.25


@pytest.mark.parametrize("epoch", [0, 1])
def test_loss_is_the_published_sum(epoch: int) -> None:
    method, classes, features = prepared(epoch=epoch)
    assert features.parts is not None
    batch = batch_of(classes, epoch)
    found = method.loss(batch)
    heads = method.heads
    assert heads is not None
    agreement = torch.from_numpy(cross_agreement(features.vectors, features.parts, 20))[batch.rows]
    spaces = [torch.from_numpy(features.vectors)]
    spaces += [torch.from_numpy(features.parts[:, p].copy()) for p in range(3)]
    static = StaticProxies(
        spaces, CameraProxies.find(classes, CAMERAS), CAMERAS, temperature=0.07, hardest=50
    )
    total = soft_triplet(batch.raw, batch.classes)
    total = total + 0.5 * static.loss(batch.features, batch.rows, batch.classes, space=0)
    scores = []
    for p, (top, bottom) in enumerate([(0, 3), (2, 6), (5, 8)]):
        stripe = seen_maps()[:, :, top:bottom].mean(dim=(2, 3))
        centred = stripe - stripe.mean(dim=0)
        part = centred / (stripe.var(dim=0, unbiased=False) + 1e-5).sqrt()
        logits = part @ heads.rows[p + 1].t()
        scores.append(logits)
        if epoch:
            own = agreement_smoothing(logits[:, None], batch.classes, agreement[:, p, None])
        else:
            own = functional.cross_entropy(logits, batch.classes, label_smoothing=0.1)
        unit = functional.normalize(part, dim=1)
        camera = static.loss(unit, batch.rows, batch.classes, space=p + 1)
        total = total + own / 3 + 0.5 * camera / 3
    whole = batch.raw @ heads.rows[0].t()
    total = total + guided_refinement(
        whole, torch.stack(scores, dim=1), batch.classes, agreement, beta=0.5
    )
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.logits(batch), whole)


def test_every_head_and_the_stripes_get_gradients() -> None:
    method, classes, _ = prepared()
    batch = batch_of(classes, 1)
    assert method.heads is not None
    assert batch.pooled is not None
    seen = batch.pooled.requires_grad_()
    torch.autograd.backward(method.loss(batch))
    assert seen.grad is not None
    trained = {name: value.grad for name, value in method.heads.named_parameters()}
    assert {name for name, gradient in trained.items() if gradient is None} == {
        f"necks.{p}.bias" for p in range(3)
    }


@pytest.mark.parametrize(
    ("off", "least"),
    [({"aals": False}, 1), ({"pglr": False}, 0), ({"triplet": False}, 0),
     ({"lambda_camera": 0.0}, 0), ({"parts": 0}, 0), ({"logit_scale": 30.0}, 0)],
)  # fmt: skip
def test_each_part_of_the_method_can_be_switched_off(off: dict[str, Any], least: int) -> None:
    def losses(settings: dict[str, Any]) -> list[float]:
        method, classes, _ = prepared(pplr=settings)
        return [float(method.loss(batch_of(classes, epoch)).detach()) for epoch in (0, 1)]

    ours, theirs = losses({"aals_epoch": 1}), losses({"aals_epoch": 1, **off})
    assert np.isfinite(theirs).all()
    for epoch in (0, 1):
        assert (abs(ours[epoch] - theirs[epoch]) > 1e-3) == (epoch >= least)


def test_without_parts_the_plain_classifier_is_left() -> None:
    method, classes, features = prepared(pplr={"parts": 0, "triplet": False, "lambda_camera": 0.0})
    assert features.parts is None
    batch = batch_of(classes, 1)
    expected = functional.cross_entropy(method.logits(batch), batch.classes)
    torch.testing.assert_close(method.loss(batch), expected)


@pytest.mark.parametrize(
    ("cameras", "words"),
    [(None, "without cameras"), (np.zeros(48, dtype=np.int32), "with one camera")],
)
def test_without_cameras_the_camera_loss_is_left_out_and_said_so(
    cameras: NDArray[np.int32] | None, words: str
) -> None:
    method = Pplr(config(), cameras, CPU)
    labels = method.prepare_epoch(extracted(method), 0)
    assert [note for note in labels.notes if words in note]
    assert not [n for n in method.prepare_epoch(extracted(method), 1).notes if words in n]
    alone, classes, _ = prepared(pplr={"aals_epoch": 1, "lambda_camera": 0.0})
    assert alone.heads is not None
    assert method.heads is not None
    method.heads.train()
    batch = batch_of(classes, 0)
    torch.testing.assert_close(method.loss(batch), alone.loss(batch))


def test_clusters_within_single_cameras_have_no_camera_loss_and_say_so() -> None:
    method = Pplr(config(), (np.arange(48) // 8 % 2).astype(np.int32), CPU)
    labels = method.prepare_epoch(extracted(method), 0)
    assert any("no cluster spans two cameras" in note for note in labels.notes)
    assert labels.extra["shared_clusters"] == 0


def test_maps_of_fewer_rows_than_parts_still_work_and_say_so() -> None:
    method = Pplr(config(), CAMERAS, CPU)
    with torch.inference_mode():
        seen = maps()[:, :, :2]
        parts = functional.normalize(method.parts(seen), dim=2).numpy()
        whole = functional.normalize(seen.mean(dim=(2, 3)), dim=1).numpy()
    assert parts.shape == (48, 3, 7)
    labels = method.prepare_epoch(Features(whole, parts), 0)
    assert any("2 rows for 3 parts" in note for note in labels.notes)


def test_more_clusters_make_more_rows_and_necks_stay() -> None:
    method, _, _ = prepared(cameras=None)
    assert method.heads is not None
    before, necks = list(method.heads.rows), list(method.heads.necks)
    random = np.random.default_rng(0)
    centres = np.repeat(random.normal(size=(9, 7)), 8, axis=0)
    vectors = (centres + 0.02 * random.normal(size=centres.shape)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = method.prepare_epoch(Features(vectors, np.repeat(vectors[:, None], 3, axis=1)), 1)
    assert labels.count == 9
    assert [row.shape for row in method.heads.rows] == [(9, 7)] * 4
    assert not any(row is old for row in method.heads.rows for old in before)
    assert list(method.heads.necks) == necks


def test_no_cluster_and_one_cluster_are_errors() -> None:
    method = Pplr(config(eps=0.01, min_samples=40), CAMERAS, CPU)
    with pytest.raises(FailedPrecondition) as none:
        method.prepare_epoch(extracted(method), 0)
    assert none.value.reason == "NO_CLUSTERS"
    method = Pplr(config(), CAMERAS, CPU)
    features = extracted(method)
    assert features.parts is not None
    same = Features(
        np.repeat(features.vectors[:1], 48, axis=0), np.repeat(features.parts[:1], 48, axis=0)
    )
    with pytest.raises(FailedPrecondition) as one:
        method.prepare_epoch(same, 0)
    assert one.value.reason == "ONE_CLUSTER"


@pytest.mark.parametrize(
    ("cameras", "ignore", "words"),
    [(1, False, "pplr with one camera"), (2, True, "pplr without cameras")],
)
def test_runs_with_one_camera_and_with_none(
    run: Callable[..., dict[str, Any]], cameras: int, ignore: bool, words: str
) -> None:
    settings = config(ignore_cameras=ignore, epochs=2)
    summary = run("run", settings, cameras=cameras)["summary"]
    assert len(summary["epochs"]) == 2
    assert all(np.isfinite(epoch["loss"]) for epoch in summary["epochs"])
    assert any(words in warning for warning in summary["warnings"])


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9, "bn_group": 8}, {"freeze_bn": True}])
def test_a_cut_run_resumes_to_the_same_end(
    run: Callable[..., dict[str, Any]], changes: dict[str, object]
) -> None:
    settings = config(deterministic=True, **changes)
    whole = run("whole", settings)
    assert run("cut", settings, cut=True)["epoch"] == 1
    cut = run("cut", settings, resume=True)
    assert torch.equal(whole["labels"], cut["labels"])
    for name in ("model", "heads"):
        assert whole[name].keys() == cut[name].keys()
        assert all(torch.equal(value, cut[name][key]) for key, value in whole[name].items())
    ours, theirs = (
        [(e["extra"], e["loss"]) for e in state["summary"]["epochs"]] for state in (whole, cut)
    )
    assert len(ours) == 3
    assert ours == theirs
    assert len(whole["heads"]["rows.0"]) == whole["summary"]["epochs"][-1]["clusters"]


def test_the_bundle_is_the_plain_encoder(make_crops: MakeCrops, tmp_path: Path) -> None:
    settings = config(epochs=2, backbone="timm:test_efficientnet", extraction="onnx")
    outcome = adapt(make_crops(), tmp_path / "run", settings)
    folder = outcome.directory.bundle
    assert open_bundle(folder).model_version == outcome.model_version
    assert all("cross_agreement" in epoch.extra for epoch in outcome.summary.epochs)
    plain = build_embedder("timm:test_efficientnet", init=str(folder))
    assert load_file(folder / "weights.safetensors").keys() == plain.state_dict().keys()
    graph = (folder / "encoder.onnx").read_bytes()
    assert graph == EncoderGraph(plain, height=64, width=32).fill(plain)
    model = onnx.load_model_from_string(graph)
    assert [output.name for output in model.graph.output] == ["embeddings"]
    sizes = [int(np.prod(tensor.dims)) for tensor in model.graph.initializer]
    assert sum(sizes) <= sum(value.numel() for value in plain.state_dict().values())
