"""``resight adapt run`` as a user calls it: exit codes, messages, JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from resight.cli import main

OPTIONS = ["--backbone", "timm:test_efficientnet", "--init", "random", "--height", "32",
           "--width", "16", "--set", "threads=1", "--set", "device=cpu", "--set", "k1=8",
           "--set", "k2=3", "--set", "extraction=torch"]  # fmt: skip


def resight(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["resight", "adapt", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_json_is_one_object_and_progress_goes_elsewhere(
    make_crops: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    crops, output = make_crops(), tmp_path / "run"
    code = resight(
        monkeypatch, "run", "--crops", str(crops), "--output", str(output), "--epochs", "1",
        "--iterations", "2", "--p", "4", "--k", "4", "--ignore-cameras", "--json", *OPTIONS,
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    payload = json.loads(captured.out)
    assert payload["bundle"] == str(output / "bundle")
    assert payload["crops"]["usable"] == 48
    assert not payload["crops"]["cameras_used"]
    assert len(payload["epochs"]) == 1
    assert "epoch 1/1" in captured.err


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--set", "epoch=3"], ["epoch", "did you mean", "epochs"]),
        (["--set", "lr=-1"], ["lr"]),
        (["--method", "moco"], ["method", "cluster-contrast"]),
        (["--backbone", "resnet5000"], ["backbone"]),
        (["--init", "/nowhere/weights.pth"], ["/nowhere/weights.pth"]),
        (["--config", "/nowhere.yaml"], ["/nowhere.yaml"]),
        (["--set", "device=cuda:77"], ["device"]),
    ],
)
def test_what_cannot_work_exits_1_and_names_the_setting(
    make_crops: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    words: list[str],
) -> None:
    arguments = ["run", "--crops", str(make_crops()), "--output", str(tmp_path / "run"), *OPTIONS]
    assert resight(monkeypatch, *arguments, *extra) == 1
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert "Traceback" not in message


def test_no_crops_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--crops", str(tmp_path / "none"), "--output", str(tmp_path / "run")]
    assert resight(monkeypatch, *arguments) == 1
    assert "none" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(
    make_crops: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import adapt.training.engine as engine

    save = engine.save_checkpoint

    def save_then_interrupt(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "save_checkpoint", save_then_interrupt)
    arguments = ["run", "--crops", str(make_crops()), "--output", str(tmp_path / "run"),
                 "--epochs", "2", "--iterations", "1", *OPTIONS]  # fmt: skip
    assert resight(monkeypatch, *arguments) == 130
    assert "--resume" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["complete"] is False


def terminated(command: list[str], folder: Path, when: Callable[[str], bool]) -> str:
    """Starts a run, sends it SIGTERM when what it wrote so far fits; returns its stderr."""
    log = folder / "stderr.txt"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        end = time.monotonic() + 120
        while not when(log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        process.terminate()
        assert process.wait(120) == 128 + signal.SIGINT, log.read_text()
    finally:
        process.kill()
        process.wait()
    return log.read_text()


def test_sigterm_keeps_the_last_whole_epoch_and_says_how_to_go_on(
    make_crops: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    checkpoint = output / "checkpoint.pt"
    command = [
        sys.executable, "-m", "resight", "adapt", "run", "--crops", str(make_crops()),
        "--output", str(output), "--epochs", "10000", "--iterations", "1", "--p", "4", "--k", "2",
        *OPTIONS,
    ]  # fmt: skip
    said = terminated(command, tmp_path, lambda _: checkpoint.exists())
    assert "--resume" in said
    assert "Traceback" not in said
    assert not (output / "bundle").exists()
    summary = json.loads((output / "summary.json").read_text())
    assert summary["complete"] is False
    kept = torch.load(checkpoint, weights_only=True)["epoch"]
    assert 1 <= kept <= len(summary["epochs"]) <= kept + 1
    said = terminated([*command, "--resume"], tmp_path, lambda text: "resuming after" in text)
    assert f"resuming after epoch {kept} of 10000" in said
    assert torch.load(checkpoint, weights_only=True)["epoch"] >= kept


def test_sigterm_before_the_first_epoch_says_that_nothing_is_kept(
    make_crops: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = [
        sys.executable, "-m", "resight", "adapt", "run", "--crops", str(make_crops()),
        "--output", str(output), "--iterations", "10000", "--p", "4", "--k", "2", *OPTIONS,
    ]  # fmt: skip
    said = terminated(command, tmp_path, lambda _: (output / "run.json").exists())
    assert "nothing is kept" in said
    assert not (output / "bundle").exists()
