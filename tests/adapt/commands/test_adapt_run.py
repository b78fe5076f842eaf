"""``resight adapt run`` as a user calls it: exit codes, messages, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
