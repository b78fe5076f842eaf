"""A small real encoder and a small set of crops whose identities are their colours."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from resight.bundle.bundle import Bundle
from resight.bundle.importing import InputContract, import_encoder
from resight.crops.preprocessing import Preprocessing

PEOPLE = 8


def colour_encoder() -> bytes:
    """Mean colours of a 4 x 2 grid: (N, 3, 32, 16) to (N, 24)."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["grid"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Reshape", ["grid", "shape"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 24])],
        [numpy_helper.from_array(np.array([-1, 24], dtype=np.int64), "shape")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def colour_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The colour encoder as a bundle."""
    contract = InputContract(
        layout="NCHW", height=32, width=16, scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return import_encoder(
        colour_encoder(),
        contract,
        output=tmp_path_factory.mktemp("bundles") / "colours",
        preprocessing=Preprocessing(32, 16),
    )


def _person(identity: int, noise: float, rng: np.random.Generator) -> Image.Image:
    """Colour blocks of one person, with noise a crop."""
    blocks = np.random.default_rng(1000 + identity).integers(0, 256, (4, 2, 3))
    pixels = np.repeat(np.repeat(blocks, 16, axis=0), 16, axis=1).astype(np.float64)
    pixels += noise * rng.standard_normal((4, 2, 3)).repeat(16, axis=0).repeat(16, axis=1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture
def crop_set(tmp_path: Path) -> Path:
    """Folders query and gallery in Market-1501 style, manifests beside them, with distractors."""
    rng = np.random.default_rng(0)
    for split, cameras, copies in (("query", (1, 2), 1), ("gallery", (1, 2, 3), 2)):
        (tmp_path / split).mkdir()
        rows = []
        people = range(1, PEOPLE + 1) if split == "query" else range(-1, PEOPLE + 1)
        for identity in people:
            for camera in cameras:
                for box in range(copies):
                    who = f"{identity:04d}" if identity >= 0 else "-1"
                    name = f"{who}_c{camera}s1_{len(rows):06d}_{box:02d}.png"
                    _person(identity + 2, 120, rng).save(tmp_path / split / name)
                    rows.append((f"{split}/{name}", f"cam-{camera}", identity))
        with (tmp_path / f"{split}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("path", "camera", "identity"), *rows])
    return tmp_path
