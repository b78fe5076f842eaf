"""A real encoder to build from, and the builder where it is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from resight.bundle import Bundle, ModelCard, render_model_card, wrap_encoder, write_bundle
from resight.crops import Preprocessing
from resight.v1 import bundle_pb2

ROOT = Path(__file__).resolve().parents[3]
HEIGHT, WIDTH, DIMENSION = 16, 8, 5


@pytest.fixture(scope="session")
def encoder() -> bytes:
    """Conv, ReLU, pooling and a linear layer, wrapped."""
    rng = np.random.default_rng(4)
    weights = {
        "conv": rng.normal(size=(6, 3, 3, 3)),
        "linear": rng.normal(size=(6, DIMENSION)),
        "bias": rng.normal(size=DIMENSION),
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("Gemm", ["d", "linear", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", DIMENSION])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return wrap_encoder(
        model.SerializeToString(), layout="NCHW", height=HEIGHT, width=WIDTH,
        scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), channel_order="BGR",
    )  # fmt: skip


@pytest.fixture
def write(encoder: bytes) -> Callable[..., Bundle]:
    parts: dict[str, Any] = {
        "encoder": encoder,
        "preprocessing": Preprocessing(HEIGHT, WIDTH),
        "provenance": bundle_pb2.Provenance(method="import"),
        "model_card": render_model_card(ModelCard("test", HEIGHT, WIDTH)),
    }
    return lambda output, **changes: write_bundle(output, **(parts | changes))


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> Any:
        assert self.returncode == 0, self.stderr
        return json.loads(self.stdout)


Command = Callable[..., Ended]


def _run(*arguments: str | Path, path: str = "") -> Ended:
    environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "resight", *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def plain() -> Command:
    """``resight`` without TensorRT."""
    return _run


@pytest.fixture(scope="session")
def rtx_path() -> str:
    folder = Path(os.environ.get("RESIGHT_TENSORRT_RTX", ROOT / ".tensorrt-rtx"))
    if not (folder / "tensorrt_rtx_bindings").is_dir():
        pytest.skip("no TensorRT-RTX: `make tensorrt` installs it (264 MB)")
    return str(folder)


@pytest.fixture
def rtx(rtx_path: str) -> Command:
    """``resight`` with TensorRT-RTX."""
    return lambda *arguments: _run(*arguments, path=rtx_path)
