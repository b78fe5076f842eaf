"""Engines built by the real library through the real command, on a machine without a GPU.

No card runs them here: what they compute is checked by `resight bundle verify --engines`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resight.bundle import Bundle, open_bundle
from resight.engines.build import BatchProfile, build_engine
from resight.errors import InvalidArgument

Write = Callable[..., Bundle]
Command = Callable[..., Any]
RTX = ("--backend", "tensorrt_rtx")
# How the library's plans begin; its version follows, a byte a part.
MAGIC = b"vtrt"


def test_engines_of_both_precisions_for_a_named_card(
    rtx: Command, write: Write, tmp_path: Path
) -> None:
    version = write(tmp_path / "b").model_version
    half = rtx(
        "bundle", "engine", "--bundle", tmp_path / "b", *RTX, "--compute-capability", "8.9",
        "--max", "16", "--json",
    )  # fmt: skip
    assert half.answer["engine"].startswith("engines/sm89-rtx1.")
    assert half.answer["engine"].endswith("-fp16.plan")
    assert half.answer["checked_on_card"] is False
    assert "no card has run" in half.stderr
    assert "encoder.fp16.onnx" in half.answer["attached"]  # made on the way
    whole = rtx(
        "bundle", "engine", "--bundle", tmp_path / "b", *RTX, "--compute-capability", "12.0",
        "--precision", "fp32", "--min", "2", "--opt", "4", "--max", "4", "--json",
    )  # fmt: skip
    bundle = open_bundle(tmp_path / "b")
    assert bundle.model_version == version
    engines = {entry.precision: entry for entry in bundle.manifest.engines}
    assert (engines["fp16"].min_batch, engines["fp16"].max_batch) == (1, 16)
    assert (engines["fp32"].min_batch, engines["fp32"].opt_batch) == (2, 4)
    assert engines["fp32"].compute_capability == "12.0"
    digests = {entry.path: entry.sha256 for entry in bundle.manifest.files}
    assert engines["fp16"].graph_sha256 == digests["encoder.fp16.onnx"]
    assert engines["fp32"].graph_sha256 == digests["encoder.onnx"]
    for answer in (half.answer, whole.answer):
        plan = bundle.file(answer["engine"]).read_bytes()
        assert len(plan) == answer["size_bytes"] > 1000
        assert plan.startswith(MAGIC)
        assert bytes(int(part) for part in answer["backend_version"].split(".")) in plan[:64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--compute-capability", "9.0"], "does not build for 9.0; it knows 12.0"),
        (["--compute-capability", "89"], "not of the form 8.9"),
        (["--compute-capability", "8.9", "--opt", "64"], "min 1, opt 64, max 32"),
        (["--compute-capability", "8.9", "--max", "5000"], "lie in 1 to 1024"),
    ],
)
def test_what_cannot_be_built_is_said_and_nothing_attached(
    rtx: Command, write: Write, tmp_path: Path, options: list[str], message: str
) -> None:
    before = write(tmp_path / "b").manifest
    done = rtx("bundle", "engine", "--bundle", tmp_path / "b", *RTX, *options)
    assert done.returncode == 1
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert open_bundle(tmp_path / "b").manifest == before


def test_verifying_without_a_card_fails_and_says_so(
    rtx: Command, write: Write, tmp_path: Path
) -> None:
    write(tmp_path / "b")
    assert "holds none" in rtx("bundle", "verify", "--engines", tmp_path / "b").stderr
    rtx("bundle", "engine", "--bundle", tmp_path / "b", *RTX, "--compute-capability", "7.5")
    done = rtx("bundle", "verify", tmp_path / "b", "--engines", "--json")
    if done.returncode == 0:
        pytest.skip("this machine has a GPU that runs the engine")
    assert done.stdout == ""
    assert "device" in done.stderr or "none can run here" in done.stderr
    assert rtx("bundle", "verify", tmp_path / "b").returncode == 0


def test_without_the_library_the_extra_is_named(
    plain: Command, write: Write, tmp_path: Path
) -> None:
    write(tmp_path / "b")
    for backend, extra in (("tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx")):
        done = plain(
            "bundle", "engine", "--bundle", tmp_path / "b",
            "--backend", backend, "--compute-capability", "8.9",
        )  # fmt: skip
        if "not installed" not in done.stderr:
            pytest.skip(f"{backend} is installed here")
        assert done.returncode == 1
        assert f"resight[{extra}]" in done.stderr


_PRECISION = """
import sys
from resight.engines.backend import load_backend
from resight.engines.build import BatchProfile, build_engine
from resight.bundle.half_precision import to_half
from resight.errors import InvalidArgument
encoder = open(sys.argv[1], "rb").read()
for graph, precision in ((encoder, "fp16"), (to_half(encoder), "fp32")):
    try:
        build_engine(graph, backend=load_backend("tensorrt_rtx"), compute_capability="8.6",
                     precision=precision, profile=BatchProfile())
    except InvalidArgument as error:
        assert error.field == "precision", error.message
    else:
        raise SystemExit(f"{precision} was built from the other graph")
"""


def test_a_graph_of_another_precision_is_refused(
    rtx_path: str, encoder: bytes, tmp_path: Path
) -> None:
    (tmp_path / "encoder.onnx").write_bytes(encoder)
    done = subprocess.run(
        [sys.executable, "-c", _PRECISION, str(tmp_path / "encoder.onnx")],
        env={"PYTHONPATH": rtx_path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# What `resight.engines` calls and no test here can run: at least the names are the library's.
_NAMES = """
import tensorrt_rtx_libs, tensorrt_rtx_bindings as trt
from cuda.bindings import runtime
for owner, names in (
    (trt.Runtime, ["deserialize_cuda_engine"]),
    (trt.ICudaEngine, ["create_execution_context", "get_tensor_profile_shape"]),
    (trt.IExecutionContext, ["set_tensor_address", "set_input_shape", "execute_async_v3"]),
    (runtime, ["cudaSetDevice", "cudaMalloc", "cudaFree", "cudaMemcpyAsync", "cudaStreamCreate",
               "cudaStreamSynchronize", "cudaDeviceGetAttribute"]),
    (runtime.cudaMemcpyKind, ["cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"]),
    (runtime.cudaDeviceAttr, ["cudaDevAttrComputeCapabilityMajor"]),
):
    for name in names:
        assert hasattr(owner, name), (owner, name)
"""


def test_names_used_on_a_card_exist(rtx_path: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NAMES],
        env={"PYTHONPATH": rtx_path}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 2), (1, 3, 2), (1, 1, 1025)])
def test_profiles_must_not_fall(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidArgument, match="must not"):
        BatchProfile(*sizes)


def test_tensorrt_builds_only_for_its_own_card(encoder: bytes) -> None:
    """Through a library that would say yes to anything."""
    from resight.engines.backend import Backend

    class Anything:
        num_layers = 1
        type = dtype = ILogger = None

        def __getattr__(self, name: str) -> Any:
            return Anything()

        def __call__(self, *_: Any) -> Any:
            return Anything()

    class Yes(Anything):
        __version__ = "11.4"

        class ILogger:
            class Severity:
                ERROR = INTERNAL_ERROR = 0

        class NetworkDefinitionCreationFlag:
            STRONGLY_TYPED = 0

        class LayerType:
            CONVOLUTION = MATRIX_MULTIPLY = None

        class DataType:
            FLOAT = HALF = None

    for present, text in ((None, "has none"), ("9.0", "has 9.0")):
        with pytest.raises(InvalidArgument, match=text):
            build_engine(
                encoder, backend=Backend("tensorrt", Yes()), compute_capability="8.9",
                precision="fp32", profile=BatchProfile(), present=present,
            )  # fmt: skip
