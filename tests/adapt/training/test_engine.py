"""The engine on crops that are hard to cluster, with batch norm frozen, and to its last epoch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resight.errors import FailedPrecondition
from tests.adapt.training.small_engine import Bench, MakeCrops, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def test_nobody_is_asked_after_the_last_epoch(bench: Bench) -> None:
    engine = bench.engine(epochs=1)
    engine.run(lambda _: pytest.fail("asked"))
    assert engine.completed == 1
    assert not engine.summary.warnings


def test_frozen_batch_norm_keeps_its_statistics_while_weights_learn(bench: Bench) -> None:
    engine = bench.engine(freeze_bn=True)
    start = weights(engine)
    engine.run()
    end = weights(engine)
    assert torch.equal(start["body.1.running_mean"], end["body.1.running_mean"])
    assert not torch.equal(start["body.1.weight"], end["body.1.weight"])


def test_no_cluster_is_an_error_that_says_what_to_do(bench: Bench) -> None:
    with pytest.raises(FailedPrecondition, match="all are outliers") as caught:
        bench.engine(eps=0.01, min_samples=40).run()
    assert caught.value.reason == "NO_CLUSTERS"


def test_spcl_without_clusters_goes_on_with_singletons(bench: Bench) -> None:
    engine = bench.engine(method="spcl", eps=0.03, min_samples=40)
    engine.run()
    assert [epoch.clusters for epoch in engine.summary.epochs] == [0, 0, 0]
    assert any("no clusters" in warning for warning in engine.summary.warnings)


@pytest.mark.parametrize("method", ["cluster-contrast", "spcl"])
def test_identical_crops_are_an_error(make_crops: MakeCrops, tmp_path: Path, method: str) -> None:
    folder = make_crops()
    first, *others = sorted(folder.iterdir())
    for other in others:
        other.write_bytes(first.read_bytes())
    with pytest.raises(FailedPrecondition, match="single cluster") as caught:
        Bench(folder, tmp_path).engine(method=method).run()
    assert caught.value.reason == "ONE_CLUSTER"


def test_fewer_clusters_than_p_are_reported(bench: Bench) -> None:
    engine = bench.engine(p=40, k=2)
    engine.run()
    assert any("fewer than p=40" in warning for warning in engine.summary.warnings)
