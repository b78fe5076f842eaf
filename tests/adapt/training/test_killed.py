"""Kill -9 while decoding, training, writing and exporting; --resume reaches the same end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from resight.bundle.reader import open_bundle

MakeCrops = Callable[..., Path]
SETTINGS = {
    "backbone": "timm:test_efficientnet", "init": "random", "height": 32, "width": 16, "pad": 2,
    "p": 8, "k": 4, "epochs": 4, "iterations": 6, "k1": 12, "k2": 3, "device": "cpu",
    "threads": 1, "extraction": "torch", "deterministic": "true", "ema": 0.5, "lr": 3e-3,
    "bn_reestimate": 2,
}  # fmt: skip
# Where a run dies: before the file operation EVENT on a path with this in it, the COUNTth time.
MOMENTS = (
    ("open", "pixels.npy", 1),
    ("os.rename", ".partial.", 1),
    ("open", "checkpoint.pt.partial", 1),
    ("os.rename", "checkpoint.pt.partial", 1),
    ("os.rename", "checkpoint.pt.partial", 2),
    ("open", "summary.png", 1),
    ("os.mkdir", ".bundle.", 1),
    ("os.rename", ".bundle.", 1),
    # The bundle is in place and the summary says that the run is not complete.
    ("open", "summary.json.partial", 2),
)
# Imports once and forks a process a run, which would otherwise take longer to start than to run.
NURSERY = """
    import io, json, os, signal, sys
    import onnxruntime, onnxscript.optimizer, sympy, timm, torch
    import torch.onnx, torch.export, torch._dynamo
    import adapt.commands, adapt.training.run, resight.cli

    def dies_before(event, part, count):
        left = [count]
        def hook(name, arguments):
            if name == event and any(part in str(value) for value in arguments[:2]):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)

    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            if order["moment"]:
                dies_before(*order["moment"])
            sys.argv = ["resight", *order["arguments"]]
            try:
                resight.cli.main()
            except SystemExit as end:
                sys.stderr.flush()
                os._exit(end.code or 0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs of ``resight`` as processes of their own."""

    def __init__(self, crops: Path, folder: Path) -> None:
        self._crops = crops
        self._folder = folder
        self.log = folder / "log.txt"
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(NURSERY)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(
        self, name: str, *more: str, moment: object = None, after: float | None = None
    ) -> tuple[int, float]:
        """Exit code and seconds of a run, killed at a moment or after so many seconds."""
        options = [f"--set={key}={value}" for key, value in SETTINGS.items()]
        arguments = ["adapt", "run", "--crops", str(self._crops), "--output",
                     str(self._folder / name), *options, *more]  # fmt: skip
        order = {"arguments": arguments, "moment": moment, "log": str(self.log)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        child = int(self._process.stdout.readline())
        started = time.monotonic()
        if after is not None:
            time.sleep(after)
            # It may have come to its end before.
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        code = int(self._process.stdout.readline())
        return code, time.monotonic() - started

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=120)


@pytest.fixture
def nursery(make_crops: MakeCrops, tmp_path: Path) -> Iterator[Nursery]:
    nursery = Nursery(make_crops(identities=16, each=8, noise=60), tmp_path)
    yield nursery
    nursery.close()


def end(folder: Path) -> tuple[list[str], dict[str, Any], str]:
    """Label sequence, final state and model version of a run."""
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["complete"]
    assert [epoch["epoch"] for epoch in summary["epochs"]] == [1, 2, 3, 4]
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    labels = [epoch["labels"] for epoch in summary["epochs"]]
    return labels, state, open_bundle(folder / "bundle").model_version


@pytest.mark.slow
def test_a_run_killed_again_and_again_reaches_the_same_end(
    nursery: Nursery, tmp_path: Path
) -> None:
    code, seconds = nursery.run("whole")
    assert code == 0, nursery.log.read_text()
    labels, state, version = end(tmp_path / "whole")
    assert len(set(labels)) > 2

    for moment in MOMENTS:
        code, _ = nursery.run("cut", "--resume", moment=moment)
        assert code == -signal.SIGKILL, (moment, nursery.log.read_text())
    chance = random.Random(20)
    for _ in range(4):
        code, _ = nursery.run("chance", "--resume", after=chance.uniform(0, 0.6 * seconds))
        assert code in (0, -signal.SIGKILL)
    for name in ("cut", "chance"):
        code, _ = nursery.run(name, "--resume")
        assert code == 0, nursery.log.read_text()
        again, resumed, other = end(tmp_path / name)
        assert again == labels
        assert torch.equal(resumed["labels"], state["labels"])
        for part in ("model", "ema"):
            assert all(torch.equal(value, resumed[part][key]) for key, value in state[part].items())
        assert other == version
        for place in (".", "cache"):
            left = {path.name for path in (tmp_path / name / place).iterdir()}
            assert left == {path.name for path in (tmp_path / "whole" / place).iterdir()}


@pytest.mark.slow
def test_resuming_a_finished_run_is_no_error_and_of_another_run_is(nursery: Nursery) -> None:
    assert nursery.run("run", "--set=epochs=1")[0] == 0
    assert nursery.run("run", "--set=epochs=1", "--resume")[0] == 0
    assert "finished already" in nursery.log.read_text()
    assert nursery.run("run", "--set=epochs=1")[0] == 1
    assert nursery.run("run", "--set=epochs=2", "--resume")[0] == 1
    assert "epochs (1 there, 2 now)" in nursery.log.read_text()
