"""Two Gloo processes against one: labels, losses, weights; death and resumption; refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapt.training.config import RunConfig
from adapt.training.run import _Run, adapt
from resight.simulate.dataset import simulate
from resight.simulate.settings import SimulationSettings

BASE: dict[str, Any] = {
    "method": "cluster-contrast",
    "backbone": "timm:test_efficientnet", "init": "random", "height": 64, "width": 32, "pad": 4,
    "p": 4, "k": 4, "epochs": 2, "iterations": 5, "k1": 10, "k2": 3, "device": "cpu",
    "threads": 1, "extraction": "torch", "extraction_batch": 40, "deterministic": True,
    # As the command line has them from the preset.
    "camera_centering": True, "eps": 0.5, "lr": 7e-4, "min_iterations": 10, "schedule": "cosine",
    "warmup_iterations": 10,
}  # fmt: skip
_HARD = {"bn_group": 4, "ema": 0.9, "cluster_contrast": {"memory_update": "hard"}}
_TAUGHT = {"method": "spcl", "features": "memory", "teacher": {"weight": 0.5, "triplet": 1.0}}
_STAGE = {"intra_iterations": 2, "intra_epochs": 2, "intra_p": 4, "intra_k": 4}
# What two ranks are given; one process has the half batch as its batch-norm group where none is.
CASES: dict[str, dict[str, Any]] = {
    "halves": {},
    "groups": _HARD,
    "taught": _TAUGHT,
    "parts": {"method": "pplr"},
    "proxies": {"method": "cap"},
    "stages": {"method": "calr", "calr": _STAGE},
    "labelled": {"method": "spcl", "features": "memory"},
}
# Every case in one launch, for a process takes seconds to start. "die" kills rank 1 in epoch 2;
# "drop" has dropout, drawn otherwise on each rank, as GPUs that are apart draw it.
DRIVER = """
    import json, os, signal, sys
    from pathlib import Path
    import torch
    from torch.nn import functional
    from adapt.training import assembly, engine, run, step

    crops, folder, cases, mode = sys.argv[1:]
    rank = int(os.environ["RANK"])
    run._Run._export = lambda *_: "not exported"
    plain = step.TrainingStep.__call__
    def dying(self, views, number):
        if number == 7 and rank == 1 and name != "whole":
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, views, number)
    if "die" in mode:
        step.TrainingStep.__call__ = dying
    build, train = assembly._build, engine.Engine.run
    def building(*arguments):
        embedder = build(*arguments)
        embedder.neck.register_forward_pre_hook(
            lambda neck, inputs: functional.dropout(inputs[0], 0.3, neck.training)
        )
        return embedder
    def drifting(self, should_stop):
        if not self.completed:
            torch.manual_seed(50 + rank)
        train(self, should_stop)
    if "drop" in mode:
        assembly._build, engine.Engine.run = building, drifting
    folder = Path(folder)
    for name, settings in json.loads(cases).items():
        labelled = Path(crops).parent / "gallery" if name == "labelled" else None
        config = run.RunConfig(**settings)
        options = {"cache": folder / "cache", "labelled": labelled, "resume": "resume" in mode}
        run.adapt(crops, folder / name, config, **options)
"""


@dataclass(frozen=True)
class Site:
    """Simulated crops and a place for runs."""

    crops: Path
    folder: Path

    def launch(self, *arguments: str, seconds: float = 200) -> subprocess.CompletedProcess[str]:
        """Two ranks of a Python program."""
        program = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                   "--nproc-per-node=2", *arguments]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            program, check=False, capture_output=True, text=True, timeout=seconds, env=environment
        )

    def drive(
        self, cases: Mapping[str, Mapping[str, Any]], mode: str = "live"
    ) -> subprocess.CompletedProcess[str]:
        """Two ranks of the driver."""
        script = self.folder / "driver.py"
        script.write_text(textwrap.dedent(DRIVER))
        return self.launch(str(script), str(self.crops), str(self.folder), json.dumps(cases), mode)

    def command(self, output: str, *more: str) -> list[str]:
        """``resight adapt run`` with the settings of the case ``halves``."""
        # Not --p: torchrun takes it for an option of its own.
        options = [f"--set={key}={value}" for key, value in BASE.items()]
        cache, folder = self.folder / "cache", self.folder / output
        return ["-m", "resight", "adapt", "run", "--crops", str(self.crops), "--cache", str(cache),
                "--output", str(folder), *options, "--json", *more]  # fmt: skip

    def state(self, name: str) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(self.folder / name / "checkpoint.pt", weights_only=True)
        return state

    def epochs(self, name: str) -> list[dict[str, Any]]:
        summary = json.loads((self.folder / name / "summary.json").read_text())
        epochs: list[dict[str, Any]] = summary["epochs"]
        return epochs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("ranks")
    settings = SimulationSettings(identities=20, cameras=3, crops=260, train_share=0.8)
    simulate(settings, folder / "site", workers=1)
    return Site(folder / "site" / "train", folder)


@pytest.fixture(scope="module")
def both(site: Site) -> Site:
    """The site after every case was run by two ranks, and by one process as ``NAME-one``."""
    done = site.drive({name: BASE | settings for name, settings in CASES.items()})
    assert done.returncode == 0, done.stderr[-3000:]
    threads = torch.get_num_threads()
    assert "epoch 2/2" in done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "_export", lambda *_: "not exported")
        for name, settings in CASES.items():
            config = RunConfig(**(BASE | {"bn_group": 8} | settings))
            adapt(
                site.crops,
                site.folder / f"{name}-one",
                config,
                cache=site.folder / "cache",
                labelled=site.crops.parent / "gallery" if name == "labelled" else None,
            )
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)
    return site


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_are_one_process(both: Site, name: str) -> None:
    ours, theirs = both.epochs(name), both.epochs(f"{name}-one")
    assert [epoch["labels"] for epoch in ours] == [epoch["labels"] for epoch in theirs]
    assert len({epoch["labels"] for epoch in ours}) == len(ours)
    np.testing.assert_allclose(
        [epoch["loss"] for epoch in ours], [epoch["loss"] for epoch in theirs], rtol=2e-4
    )
    two, one = both.state(name), both.state(f"{name}-one")
    for part in ("model", "ema", "heads"):
        if one[part] is None:
            assert two[part] is None
            continue
        assert two[part].keys() == one[part].keys()
        for key, value in one[part].items():
            if value.is_floating_point():
                # Adam makes steps of the learning rate even of gradients that are all rounding.
                torch.testing.assert_close(two[part][key], value, rtol=1e-2, atol=2e-3)


@pytest.mark.slow
def test_a_dead_rank_ends_the_run_which_then_resumes(both: Site) -> None:
    dead = both.drive({"dead": BASE}, mode="die")
    assert dead.returncode != 0
    assert both.state("dead")["epoch"] == 1
    resumed = both.launch(*both.command("dead", "--resume"))
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    # One rank answers.
    assert json.loads(resumed.stdout)["complete"]
    whole, again = both.state("halves"), both.state("dead")
    assert torch.equal(whole["labels"], again["labels"])
    assert all(torch.equal(value, again["model"][key]) for key, value in whole["model"].items())
    assert both.epochs("dead")[1]["labels"] == both.epochs("halves")[1]["labels"]
    record = json.loads((both.folder / "dead" / "run.json").read_text())
    assert (record["ranks"], record["config"]["bn_group"]) == (2, 8)


@pytest.mark.slow
def test_each_rank_resumes_its_own_dropout(site: Site) -> None:
    dead = site.drive({"whole": BASE, "cut": BASE}, mode="drop die")
    assert dead.returncode != 0
    assert (site.state("whole")["epoch"], site.state("cut")["epoch"]) == (2, 1), dead.stderr[-3000:]
    first, second = (state["torch"] for state in site.state("cut")["random"])
    assert not torch.equal(first, second)
    resumed = site.drive({"cut": BASE}, mode="drop resume")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    whole, again = site.state("whole"), site.state("cut")
    assert all(torch.equal(value, again["model"][key]) for key, value in whole["model"].items())
    for ours, theirs in zip(again["random"], whole["random"], strict=True):
        assert torch.equal(ours["torch"], theirs["torch"])


@pytest.mark.slow
def test_an_error_of_one_rank_ends_all_with_its_message(both: Site) -> None:
    refused = both.launch(*both.command("halves"))
    assert refused.returncode != 0
    assert "rank 0: --output" in refused.stderr
    assert "holds an unfinished run" in refused.stderr
