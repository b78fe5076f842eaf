"""Engines with a network small enough for a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adapt.data.augmentation import Normalisation
from adapt.data.cache import build_cache
from adapt.data.cameras import camera_codes
from adapt.methods.method import Features
from adapt.methods.registry import create_method
from adapt.report.summary import RunSummary
from adapt.training import randomness
from adapt.training.batch_norm import group_batch_norms
from adapt.training.checkpoint import Identity, network_digest
from adapt.training.config import RunConfig
from adapt.training.device import Precision
from adapt.training.engine import Engine, Workload
from adapt.training.extraction import PartHead, extract
from resight.crops import Preprocessing, open_source

CPU = torch.device("cpu")
SMALL = {
    "height": 32, "width": 16, "p": 4, "k": 4, "epochs": 3, "iterations": 4, "k1": 8, "k2": 3,
    "lr": 1e-3, "device": "cpu", "pad": 2, "threads": 1,
}  # fmt: skip
MakeCrops = Callable[..., Path]


class Tiny(nn.Module):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=4), nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Dropout(0.1),
            nn.Linear(2 * width, 24), nn.BatchNorm1d(24),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.body(images)
        return result


@dataclass
class Bench:
    """Builds engines over the same crops."""

    folder: Path
    tmp_path: Path

    def engine(self, *, name: str = "a", network_width: int = 16, **settings: object) -> Engine:
        config = RunConfig(**(SMALL | settings))  # type: ignore[arg-type]
        crops = open_source(self.folder).scan(check="header").crops
        cache = build_cache(crops, Preprocessing(32, 16), self.tmp_path / "cache")
        cameras = camera_codes(cache.crops, ignore=config.ignore_cameras).codes
        randomness.seed_everything(config.seed)
        model = Tiny(network_width)
        identity = Identity(config.model_dump(mode="json"), network_digest(model), cache.key)
        group_batch_norms(model, config.bn_group)
        normalise = Normalisation((0.5,) * 3, (0.25,) * 3)

        def extractor(network: nn.Module, parts: PartHead | None = None) -> Features:
            return extract(
                network,
                cache,
                normalise,
                device=CPU,
                batch=16,
                precision=Precision("fp32", CPU),
                parts=parts,
            )

        return Engine(
            model,
            create_method(config, cameras, CPU),
            config,
            Workload(cache, cameras, normalise, extractor, config.iterations or 1, CPU),
            checkpoint=self.tmp_path / f"{name}.pt",
            identity=identity,
            summary=RunSummary(config.method, "test"),
        )


def weights(engine: Engine) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in engine.encoder.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


class StopAfterEpoch(Exception):
    pass


def interrupted(engine: Engine, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    save = engine._save

    def save_then_stop() -> None:
        save()
        if engine.completed == epochs:
            raise StopAfterEpoch

    monkeypatch.setattr(engine, "_save", save_then_stop)
    with pytest.raises(StopAfterEpoch):
        engine.run()
