"""The spoilt encoders of ``bench sabotage``: each runs, differs, and is refused where it can be."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from adapt.backbones.build import build_embedder
from adapt.export.bundle import export_bundle
from resight.bundle.bundle import Bundle
from resight.bundle.graph_session import GraphSession
from resight.crops import Preprocessing

SIZE = Preprocessing(64, 32)


def _bench(name: str) -> ModuleType:
    """A module of the benches, which are no installed package."""
    path = Path(__file__).parents[3] / "bench" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sabotage, gate = _bench("sabotage"), _bench("gate")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small network of the kind that ``adapt run`` writes, with statistics of its own."""
    import torch

    network = build_embedder("timm:test_efficientnet", init="random", seed=3)
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))
    bundle: Bundle = export_bundle(
        network,
        output=tmp_path_factory.mktemp("original") / "bundle",
        preprocessing=SIZE,
        method="none",
        run_id="test",
        config={"backbone": "timm:test_efficientnet"},
    )
    return sabotage.Original(bundle)


@pytest.mark.parametrize("name", sabotage.SABOTAGES)
def test_a_spoilt_encoder_runs_under_the_contract_and_differs(original: Any, name: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 32, 3)).astype(np.uint8)
    good = GraphSession(original.bundle.encoder_path.read_bytes(), SIZE)
    encoder, size = sabotage.sabotaged(original, name)
    spoilt = GraphSession(encoder, size)
    assert spoilt.dimension == good.dimension
    before, after = good.embed(images), spoilt.embed(images)
    assert np.abs((before * after).sum(axis=1) - 1).max() > 1e-6


def test_swapped_channels_are_those_of_a_swapped_picture(original: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 32, 3)).astype(np.uint8)
    good = GraphSession(original.bundle.encoder_path.read_bytes(), SIZE)
    spoilt = GraphSession(*sabotage.sabotaged(original, "swapped-channels"))
    flipped = GraphSession(*sabotage.sabotaged(original, "upside-down"))
    assert spoilt.embed(images[..., ::-1].copy()) == pytest.approx(good.embed(images), abs=1e-5)
    assert flipped.embed(images[:, ::-1].copy()) == pytest.approx(good.embed(images), abs=1e-5)


def test_the_summary_counts_pairs_and_names_what_slipped_through() -> None:
    live = {"silhouette": 0.1, "stability": 0.3, "reciprocity": 0.5, "steadiness": 0.2}
    lines = [
        {
            "name": f"run{n // 2}" + ("" if n % 2 else "@1"),
            "spoilt": False,
            "map": 0.1 + 0.03 * n,
            "score": float(rank),
            "passed": True,
            "signals": {k: v + 0.02 * rank for k, v in live.items()},
        }
        for n, rank in enumerate((0, 1, 3, 2, 4, 5))
    ]
    lines += [
        {"name": name, "spoilt": True, "map": None, "score": 0.0, "passed": passed, "signals": {}}
        for name, passed in (("caught", False), ("missed", True))
    ]
    found = gate.summary(lines)
    seen = found["seen"]
    assert seen["spearman"] == pytest.approx(1 - 6 * 2 / (6 * 35), abs=1e-4)
    assert seen["runs"] == 3
    right = seen["pairs"]["apart by more than 0.02"]
    assert right["pairs"] == 15
    assert right["in the right order"] == pytest.approx(14 / 15, abs=1e-4)
    assert found["spoilt_that_passed"] == ["missed"]
    assert "unseen" not in found
    for line in lines[2:4]:
        line["unseen"] = True
    found = gate.summary(lines)
    assert found["seen"]["spearman"] == 1.0
    assert found["unseen"]["spearman"] == -1.0
    assert found["unseen, round 1"]["spearman"] == -1.0
    for line in lines[4:6]:
        line |= {"unseen": True, "round": 2}
    lines[4]["passed"] = False
    found = gate.summary(lines, 0.21)
    assert found["unseen"]["healthy"] == 4
    assert found["unseen, round 2"]["spearman"] == 1.0
    assert found["all"]["spearman"] == pytest.approx(1 - 6 * 2 / (6 * 35), abs=1e-4)
    assert found["unseen"]["passed though worse"] == {"run1@1": -0.05, "run1": -0.02}
    assert found["unseen"]["refused though better"] == {"run2@1": 0.01}
    lines[5]["dimension"] = 7
    assert gate.summary(lines)["all"]["healthy"] == 5


def test_lines_are_judged_again_by_their_signals() -> None:
    live = {"silhouette": 0.1, "stability": 0.3, "reciprocity": 0.5, "steadiness": 0.2}
    old = {"name": "a", "signals": live, "score": -1.0, "passed": False}
    kept = ["likeness: too little", "collapse: rank"]
    wrong = ["live: score -1.000 is below -0.1: x", "mixing: 0.1 instead of 0.9"]
    again = gate.rescored(old | {"reasons": wrong}, live)
    assert (again["score"], again["passed"], again["reasons"]) == (0.0, True, [])
    again = gate.rescored(old | {"reasons": [*wrong, *kept]}, live)
    assert (again["score"], again["passed"], again["reasons"]) == (0.0, False, kept)
    fallen = old | {"reasons": [], "signals": live | {"silhouette": -0.3}}
    again = gate.rescored(fallen, live)
    assert again["score"] == -1.0
    assert [reason.split(":")[0] for reason in again["reasons"]] == ["live", "silhouette"]
    unread = old | {"signals": {}, "reasons": kept}
    assert gate.rescored(unread, live) == unread


def test_a_run_is_scored_with_scales_that_it_had_no_part_in() -> None:
    random = np.random.default_rng(0)
    names = ["a", "a@1", "b", "c", "c@1", "c@2", "d", "e"]
    signals = random.standard_normal((len(names), len(gate.WEIGHED)))
    maps = random.uniform(0.1, 0.8, len(names))
    lines = [
        {"name": name, "map": value, **dict(zip(gate.WEIGHED, row, strict=True))}
        for name, value, row in zip(names, maps.tolist(), signals.tolist(), strict=True)
    ]
    scores = []
    for name, row in zip(names, signals, strict=True):
        others = [k for k, other in enumerate(names) if other[0] != name[0]]
        parts = (row - signals[2]) / np.std(signals[others], axis=0)
        scores.append(np.mean([min(4.0, max(-4.0, part)) for part in parts]))
    ranks = np.argsort(np.argsort(scores)), np.argsort(np.argsort(maps))
    apart = float(((ranks[0] - ranks[1]) ** 2).sum())
    found = gate.calibration(lines, "b")["spearman_of_scales_fitted_leaving_a_run_out"]
    assert found == pytest.approx(1 - 6 * apart / (8 * 63), abs=1e-4)
