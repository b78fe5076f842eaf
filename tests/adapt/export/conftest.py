"""A small encoder and site; one thread, since the suite may share its processors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from adapt.data.cache import CropCache, build_cache
from resight.bundle.wrap import wrap_encoder
from resight.crops import CropRef, Preprocessing


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


SIZE = Preprocessing(16, 8)


@pytest.fixture(scope="session")
def encoder() -> bytes:
    """Two convolutions whose answer follows the colours of a crop's halves."""
    rng = np.random.default_rng(0)
    weights = {
        "conv": rng.normal(size=(16, 3, 4, 4)) * 0.3,
        "linear": rng.normal(size=(16 * 4 * 2, 24)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], name="conv", strides=[4, 4]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("MatMul", ["c", "linear"], ["y"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 24])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return wrap_encoder(
        model.SerializeToString(), layout="NCHW", height=16, width=8,
        scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25),
    )  # fmt: skip


@dataclass(frozen=True)
class Site:
    """Crops of people whose clothes are two colours, and who they show."""

    crops: list[CropRef]
    people: NDArray[np.int64]
    folder: Path

    def cache(self, **changes: Any) -> CropCache:
        crops = [replace(crop, **changes) for crop in self.crops]
        return build_cache(crops, SIZE, self.folder / "cache")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """90 people cross three cameras within five minutes."""
    folder = tmp_path_factory.mktemp("site")
    rng = np.random.default_rng(1)
    start = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
    casts = rng.normal(0, 12, (3, 3))
    crops, people = [], []
    for person in range(90):
        clothes = rng.integers(0, 256, (2, 3))
        moment = rng.uniform(0, 300)
        for camera in rng.permutation(3):
            for step in range(4):
                image = np.repeat(clothes, 8, axis=0)[:, None].repeat(8, axis=1)
                noisy = image + casts[camera] + rng.normal(0, 14, (16, 8, 3))
                path = folder / f"{person}-{camera}-{step}.png"
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
                crops.append(
                    CropRef(
                        path,
                        camera=f"c{camera}",
                        track=f"t{person}",
                        capture_time=start + timedelta(seconds=moment),
                    )
                )
                people.append(person)
                moment += rng.uniform(0.3, 0.9)
            moment += rng.uniform(10, 30)
    return Site(crops, np.array(people), folder)
