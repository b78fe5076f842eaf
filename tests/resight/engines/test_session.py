"""The session and the card's self-check against a stand-in for the GPU.

The stand-in keeps memory by address and runs "plans" that are ONNX graphs, so that a wrong address,
size, order or shape gives wrong numbers. It proves our calls consistent, not TensorRT's answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from resight.bundle import Bundle, golden_inputs
from resight.bundle.attachments import Attachments
from resight.bundle.graph_session import GraphSession
from resight.bundle.rank_agreement import RankBounds
from resight.engines.backend import Backend
from resight.engines.check import check_engines
from resight.engines.device import CudaDevice
from resight.engines.session import EngineSession
from resight.errors import FailedPrecondition, InvalidArgument, Refused
from resight.v1 import bundle_pb2

SHAPE = (16, 8, 3)
Write = Callable[..., Bundle]


class Status(int):
    name = "cudaErrorInitializationError"


class Runtime:
    """CUDA's runtime as `cuda.bindings.runtime` shows it: calls queue until synchronised."""

    class cudaDeviceAttr:  # noqa: N801
        cudaDevAttrComputeCapabilityMajor = "major"  # noqa: N815
        cudaDevAttrComputeCapabilityMinor = "minor"  # noqa: N815

    class cudaMemcpyKind:  # noqa: N801
        cudaMemcpyHostToDevice = "up"  # noqa: N815
        cudaMemcpyDeviceToHost = "down"  # noqa: N815

    def __init__(self, cards: int = 1) -> None:
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.queue: list[Callable[[], None]] = []
        self._cards = cards

    def cudaSetDevice(self, ordinal: int) -> tuple[Status]:  # noqa: N802
        return (Status(0 if ordinal < self._cards else 100),)

    def cudaDeviceGetAttribute(self, attribute: str, _: int) -> tuple[Status, int]:  # noqa: N802
        return Status(0), {"major": 8, "minor": 9}[attribute]

    def cudaStreamCreate(self) -> tuple[Status, int]:  # noqa: N802
        return Status(0), 77

    def cudaMalloc(self, size: int) -> tuple[Status, int]:  # noqa: N802
        address = 4096 * (len(self.memory) + 1)
        self.memory[address] = np.zeros(size, np.uint8)
        return Status(0), address

    def cudaFree(self, address: int) -> tuple[Status]:  # noqa: N802
        del self.memory[address]
        return (Status(0),)

    def cudaMemcpyAsync(  # noqa: N802
        self, target: int, source: int, size: int, kind: str, stream: int
    ) -> tuple[Status]:
        import ctypes

        assert stream == 77
        card = self.memory[target if kind == "up" else source]
        assert size <= card.nbytes, "beyond what was allocated"

        def copy() -> None:
            host = source if kind == "up" else target
            pair = (card.ctypes.data, host) if kind == "up" else (host, card.ctypes.data)
            ctypes.memmove(pair[0], pair[1], size)

        self.queue.append(copy)
        return (Status(0),)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Status]:  # noqa: N802
        assert stream == 77
        while self.queue:
            self.queue.pop(0)()
        return (Status(0),)


def library(runtime: Runtime, version: str = "1.2.3", profile: tuple[int, ...] = (1, 4, 8)) -> Any:
    """A TensorRT whose plans are ONNX graphs."""

    class Context:
        def __init__(self, session: Any) -> None:
            self._session = session
            self._addresses: dict[str, int] = {}
            self._shape: tuple[int, ...] = ()

        def set_tensor_address(self, name: str, address: int) -> bool:
            self._addresses[name] = address
            return True

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self._shape = tuple(shape)
            return name == "images" and profile[0] <= shape[0] <= profile[2]

        def execute_async_v3(self, stream: int) -> bool:
            assert stream == 77
            shape = self._shape

            def work() -> None:
                raw = runtime.memory[self._addresses["images"]][: int(np.prod(shape))]
                answer = self._session.run(None, {"images": raw.reshape(shape)})[0]
                flat = answer.reshape(-1).view(np.uint8)
                runtime.memory[self._addresses["embeddings"]][: flat.size] = flat

            runtime.queue.append(work)
            return True

    class Engine:
        def __init__(self, plan: bytes) -> None:
            self._session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])

        def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
            assert (name, index) == ("images", 0)
            return [(batch, *SHAPE) for batch in profile]

        def create_execution_context(self) -> Context:
            return Context(self._session)

    class Module:
        __version__ = version

        class ILogger:
            class Severity:
                ERROR, INTERNAL_ERROR, WARNING = range(3)

        class Runtime:
            def __init__(self, logger: Any) -> None:
                self._logger = logger

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                if plan == b"damaged":
                    self._logger.log(0, "bad magic")
                    self._logger.log(2, "never mind")
                    return None
                return Engine(plan)

    return Module


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


def described(**changes: Any) -> bundle_pb2.Engine:
    values: dict[str, Any] = {
        "path": "engines/a.plan", "backend": "tensorrt", "backend_version": "1.2.3",
        "compute_capability": "8.9", "precision": "fp32",
        "min_batch": 1, "opt_batch": 4, "max_batch": 8,
        "graph_sha256": hashlib.sha256(b"four\n").hexdigest(),
    }  # fmt: skip
    return bundle_pb2.Engine(**(values | changes))


def bundle_with(write: Write, path: Path, plan: bytes, **changes: Any) -> Bundle:
    entry = described(**changes)
    attached = Attachments(files={entry.path: plan, "graph": b"four\n"}, engines=[entry])
    return write(path, attachments=attached)


def test_embeddings_come_back_for_every_batch_of_the_profile(
    write: Write, encoder: bytes, tmp_path: Path, runtime: Runtime
) -> None:
    bundle = bundle_with(write, tmp_path / "b", encoder)
    reference = GraphSession(encoder, bundle.preprocessing)
    backend, device = Backend("tensorrt", library(runtime)), CudaDevice(runtime)
    assert device.compute_capability == "8.9"
    images = golden_inputs(9, 8, bundle.preprocessing)
    with EngineSession(bundle, bundle.manifest.engines[0], backend, device) as session:
        for batch in (8, 1, 2, 7):
            found = session.embed(images[:batch])
            assert np.allclose(found, reference.embed(images[:batch]), atol=1e-6)
        found = session.embed(images[::2])  # not contiguous
        assert np.allclose(found, reference.embed(images[::2].copy()), atol=1e-6)
    assert runtime.memory == {}


def test_a_batch_beyond_the_profile_is_refused(
    write: Write, encoder: bytes, tmp_path: Path, runtime: Runtime
) -> None:
    bundle = bundle_with(write, tmp_path / "b", encoder, min_batch=2)
    backend = Backend("tensorrt", library(runtime, profile=(2, 4, 8)))
    session = EngineSession(bundle, bundle.manifest.engines[0], backend, CudaDevice(runtime))
    for batch in (0, 1, 9):
        with pytest.raises(InvalidArgument, match="takes 2 to 8; cut it") as caught:
            session.embed(np.zeros((batch, *SHAPE), np.uint8))
        assert caught.value.reason == "BATCH_OUT_OF_PROFILE"
    with pytest.raises(InvalidArgument, match="uint8"):
        session.embed(np.zeros((2, 8, 16, 3), np.uint8))
    assert not runtime.queue


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "tensorrt_rtx"}, "it is for tensorrt_rtx"),
        ({"backend_version": "1.2.4"}, "needs tensorrt 1.2.4, here is 1.2.3"),
        ({"compute_capability": "9.0"}, "for 9.0, this GPU is 8.9"),
        ({"max_batch": 16}, "not what the manifest says"),
        ({"graph_sha256": "0" * 64}, "no longer the bundle's"),
    ],
)
def test_an_engine_for_something_else_is_refused(
    write: Write,
    encoder: bytes,
    tmp_path: Path,
    runtime: Runtime,
    changes: dict[str, Any],
    message: str,
) -> None:
    bundle = bundle_with(write, tmp_path / "b", encoder, **changes)
    backend = Backend("tensorrt", library(runtime))
    with pytest.raises(FailedPrecondition, match=message):
        EngineSession(bundle, bundle.manifest.engines[0], backend, CudaDevice(runtime))


def test_a_damaged_plan_gives_the_librarys_words(
    write: Write, tmp_path: Path, runtime: Runtime
) -> None:
    bundle = bundle_with(write, tmp_path / "b", b"damaged")
    backend = Backend("tensorrt", library(runtime))
    with pytest.raises(FailedPrecondition, match="does not load: bad magic;"):
        EngineSession(bundle, bundle.manifest.engines[0], backend, CudaDevice(runtime))


def test_the_self_check_passes_a_true_engine_and_names_the_others(
    write: Write, encoder: bytes, tmp_path: Path, runtime: Runtime
) -> None:
    other = described(path="engines/b.plan", compute_capability="9.0")
    attached = Attachments(
        files={"engines/a.plan": encoder, "engines/b.plan": b"other", "graph": b"four\n"},
        engines=[described(), other],
    )
    bundle = write(tmp_path / "b", attachments=attached)
    backend = Backend("tensorrt", library(runtime))
    good, passed = check_engines(bundle, load=lambda _: backend, device=lambda: CudaDevice(runtime))
    assert good.checked
    assert good.batches == (1, 2, 4, 7, 8)
    assert good.min_cosine > 0.9999
    assert "min_cosine" in good.payload()
    assert not passed.checked
    assert "this GPU is 8.9" in passed.reason
    assert "min_cosine" not in passed.payload()


def test_the_self_check_refuses_an_engine_that_answers_differently(
    write: Write, encoder: bytes, tmp_path: Path, runtime: Runtime
) -> None:
    model = onnx.load_from_string(encoder)
    for tensor in model.graph.initializer:
        if tensor.name == "encoder/linear":
            values = numpy_helper.to_array(tensor) + np.float32(0.05)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    bundle = bundle_with(write, tmp_path / "b", model.SerializeToString())
    with pytest.raises(FailedPrecondition, match="do not serve with it") as caught:
        check_engines(
            bundle,
            load=lambda _: Backend("tensorrt", library(runtime)),
            device=lambda: CudaDevice(runtime),
        )
    assert caught.value.reason == "ENGINE_PARITY"


@pytest.mark.parametrize("smallest", [1, 3])
def test_the_self_check_compares_rankings_of_crops(
    write: Write,
    encoder: bytes,
    tmp_path: Path,
    runtime: Runtime,
    smallest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Five dimensions keep their order where hundreds would not: a bound that tells the two apart.
    monkeypatch.setattr("resight.engines.check.GRAPH_BOUNDS", RankBounds(0.999, 0.99))
    crops = np.random.default_rng(0).integers(0, 256, (41, *SHAPE), dtype=np.uint8)
    backend = Backend("tensorrt", library(runtime, profile=(smallest, 4, 8)))

    def check(name: str, plan: bytes) -> Any:
        bundle = bundle_with(write, tmp_path / name, plan, min_batch=smallest, precision="fp16")
        (verdict,) = check_engines(
            bundle, crops=crops, load=lambda _: backend, device=lambda: CudaDevice(runtime)
        )
        return verdict

    good = check("good", encoder)
    assert good.overlap == good.correlation == pytest.approx(1)
    assert "top-10 overlap" in good.text()
    model = onnx.load_from_string(encoder)
    for tensor in model.graph.initializer:
        if tensor.name == "encoder/linear":  # near enough for a cosine, not for an order
            noise = np.random.default_rng(1).normal(size=tensor.dims) * 0.03
            values = (numpy_helper.to_array(tensor) + noise).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(Refused, match=r"engines/a\.plan ranks 41 crops otherwise"):
        check("bad", model.SerializeToString())


def test_nothing_checked_is_no_success(
    write: Write, encoder: bytes, tmp_path: Path, runtime: Runtime
) -> None:
    bundle = bundle_with(write, tmp_path / "b", encoder, compute_capability="9.0")
    with pytest.raises(FailedPrecondition, match="none can run here"):
        check_engines(
            bundle,
            load=lambda _: Backend("tensorrt", library(runtime)),
            device=lambda: CudaDevice(runtime),
        )
    with pytest.raises(FailedPrecondition, match="the bundle holds none"):
        check_engines(write(tmp_path / "c"))


def test_no_card_is_said() -> None:
    with pytest.raises(FailedPrecondition, match="no GPU to be used: cudaSetDevice gives"):
        CudaDevice(Runtime(cards=0))
