"""Whole runs of a method on generated crops, less the export, which takes most of their time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapt.training import engine
from adapt.training.config import RunConfig
from adapt.training.run import adapt

Runner = Callable[..., dict[str, Any]]


class CutError(Exception):
    """Ends a run where a test wants it to end."""


@pytest.fixture
def run(make_crops: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    """``run(name, config, cameras=2, cut=False, resume=False)`` gives the checkpoint's content.

    ``cut`` ends the run after its first epoch.
    """

    def no_export(*_arguments: object, **_options: object) -> None:
        raise CutError

    save: Callable[..., None] = engine.save_checkpoint  # type: ignore[attr-defined]

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)
        raise CutError

    def go(
        name: str, config: RunConfig, *, cameras: int = 2, cut: bool = False, resume: bool = False
    ) -> dict[str, Any]:
        crops = tmp_path / f"crops{cameras}"
        if not crops.exists():
            make_crops(cameras=cameras, name=crops.name)
        with monkeypatch.context() as patch:
            patch.setattr("adapt.training.run._Run._export", no_export)
            if cut:
                patch.setattr(engine, "save_checkpoint", save_and_stop)
            with pytest.raises(CutError):
                adapt(crops, tmp_path / name, config, resume=resume)
        return dict(torch.load(tmp_path / name / "checkpoint.pt", weights_only=True))

    return go
