"""Generated crops: one colour per identity, a cast per camera; the truth is in the names only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

CropMaker = Callable[..., Path]


@pytest.fixture
def make_crops(tmp_path: Path) -> CropMaker:
    """Writes Market-style crops: ``make_crops(identities, each, cameras, …)`` gives the folder."""

    def make(
        identities: int = 8,
        each: int = 6,
        cameras: int = 2,
        *,
        name: str = "crops",
        noise: float = 12.0,
        seed: int = 0,
    ) -> Path:
        random = np.random.default_rng(seed)
        folder = tmp_path / name
        folder.mkdir()
        clothes = random.integers(0, 256, (identities, 2, 3))
        casts = random.normal(0, 10, (cameras, 3))
        for identity in range(identities):
            for shot in range(each):
                camera = shot % cameras
                image = np.empty((32, 16, 3))
                image[:16], image[16:] = clothes[identity]
                image += casts[camera] + random.normal(0, noise, image.shape)
                stem = f"{identity + 1:04d}_c{camera + 1}s1_{shot:06d}_00"
                pixels = image.clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{stem}.png")
        return folder

    return make
