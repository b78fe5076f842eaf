"""The ONNX Runtime encoder against the same network in numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import service.encoder.onnx
from resight.bundle import Bundle, wrap_encoder, write_bundle
from resight.crops import Preprocessing
from resight.errors import FailedPrecondition
from resight.v1 import bundle_pb2
from service.encoder.onnx import OnnxEncoder
from service.encoder.session import CPU, CUDA, ProviderUnusableError, Session, open_session
from service.telemetry import MODEL_INFO, REGISTRY

HEIGHT, WIDTH, DIMENSION = 16, 8, 5
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
WEIGHTS = np.random.default_rng(3).standard_normal((3 * HEIGHT * WIDTH, DIMENSION)).astype("f4")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", DIMENSION])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    encoder = wrap_encoder(
        model.SerializeToString(),
        layout="NCHW",
        height=HEIGHT,
        width=WIDTH,
        scale=1 / 255,
        mean=MEAN,
        std=STD,
    )
    return write_bundle(
        Path(tmp_path_factory.mktemp("bundle")) / "linear",
        encoder=encoder,
        preprocessing=Preprocessing(HEIGHT, WIDTH),
        provenance=bundle_pb2.Provenance(method="import"),
        model_card="# Linear\n",
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_vectors_equal_numpy(bundle: Bundle, batch: int) -> None:
    encoder = OnnxEncoder(bundle, threads=1)
    crops = np.random.default_rng(batch).integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8)
    normalised = (crops / 255 - np.array(MEAN)) / np.array(STD)
    expected = normalised.transpose(0, 3, 1, 2).reshape(batch, -1) @ WEIGHTS
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    vectors = encoder.embed(crops)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert vectors.dtype == np.float32
    assert (encoder.model_version, encoder.dimension) == (bundle.model_version, DIMENSION)
    assert encoder.provider == "CPUExecutionProvider"


needs_no_cuda = pytest.mark.skipif(
    CUDA in onnxruntime.get_available_providers(), reason="this onnxruntime is one with CUDA"
)


def images(count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, HEIGHT, WIDTH, 3), np.uint8)


def fallbacks(asked: str) -> float:
    labels = {"asked": asked, "got": CPU}
    return REGISTRY.get_sample_value("resight_provider_fallback_total", labels) or 0.0


def shown(bundle: Bundle) -> set[str]:
    """Providers that the metrics name for the model."""
    return {
        sample.labels["provider"]
        for sample in next(iter(MODEL_INFO.collect())).samples
        if sample.labels["model_version"] == bundle.model_version
    }


@needs_no_cuda
def test_a_provider_that_is_not_there_is_refused(bundle: Bundle) -> None:
    before = fallbacks(CUDA)
    with pytest.raises(FailedPrecondition) as caught:
        OnnxEncoder(bundle, provider=CUDA)
    assert (caught.value.field, caught.value.reason) == (
        "encoder.provider",
        "PROVIDER_UNAVAILABLE",
    )
    for told in (CUDA, "RESIGHT_ENCODER__FALLBACK=cpu", "RESIGHT_ENCODER__PROVIDER=cpu"):
        assert told in caught.value.message
    assert fallbacks(CUDA) == before, "nothing took its place"


@needs_no_cuda
def test_the_cpu_takes_its_place_where_that_is_allowed(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    before = fallbacks(CUDA)
    encoder = OnnxEncoder(bundle, provider=CUDA, fallback=True)
    encoder.show()
    assert (encoder.provider, shown(bundle)) == (CPU, {CPU})
    assert fallbacks(CUDA) == before + 1
    assert f"encoder {bundle.model_version} runs on the CPU" in caplog.text
    np.testing.assert_array_equal(encoder.embed(images()), OnnxEncoder(bundle).embed(images()))
    encoder.hide()
    assert shown(bundle) == set()


@needs_no_cuda
def test_a_session_that_got_another_provider_is_not_taken(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that cannot be loaded, such as cuDNN: ONNX Runtime goes on without a word."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with (
        pytest.warns(UserWarning, match="is not in available"),
        pytest.raises(ProviderUnusableError, match=f"{CUDA} was asked for and {CPU} was got"),
    ):
        open_session(bundle, CUDA, threads=1, spin=False)


def test_a_session_that_cannot_be_made_is_not_made_with_another(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ONNX Runtime would print that, and take the CPU."""

    def no_device(_: object, providers: object, *rest: object) -> None:
        raise RuntimeError(f"no device for {providers}")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime.InferenceSession, "_create_inference_session", no_device)
    with pytest.raises(ProviderUnusableError, match=f"{CUDA}: no device for .*{CUDA}"):
        open_session(bundle, CUDA, threads=1, spin=False)
    assert capsys.readouterr().out == ""


def test_a_provider_that_computes_something_else_is_not_taken(bundle: Bundle) -> None:
    other = next((name for name in onnxruntime.get_available_providers() if name != CPU), None)
    if other is None:
        pytest.skip("this onnxruntime has the CPU alone")
    session = open_session(bundle, other, threads=1, spin=False)
    np.testing.assert_allclose(session.embed(images()), OnnxEncoder(bundle).embed(images()))
    manifest = bundle_pb2.BundleManifest()
    manifest.CopyFrom(bundle.manifest)
    golden = np.frombuffer(manifest.golden.embeddings, "<f4").reshape(-1, DIMENSION)
    manifest.golden.embeddings = np.roll(golden, 1, axis=1).tobytes()
    with pytest.raises(ProviderUnusableError, match="golden outputs differ"):
        open_session(replace(bundle, manifest=manifest), other, threads=1, spin=False)


class Card:
    """A provider that computes as the CPU does, for as long as it is sound."""

    provider = CUDA
    fault: Exception | None = None

    def __init__(self, cpu: Session) -> None:
        self._cpu = cpu

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.fault is not None:
            raise self.fault
        vectors = self._cpu.embed(images)
        if np.all(images == 255):
            vectors[0, 0] = np.nan
        return vectors


@pytest.fixture
def card(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card(open_session(bundle, CPU, threads=1, spin=False))

    def opened(bundle: Bundle, provider: str, **rest: Any) -> Any:
        return made if provider == CUDA else open_session(bundle, provider, **rest)

    monkeypatch.setattr(service.encoder.onnx, "open_session", opened)
    return made


@pytest.mark.parametrize("fault", [RuntimeError("CUDA failure 700"), None])
def test_a_provider_that_fails_later_is_left_for_good(
    bundle: Bundle, card: Card, fault: Exception | None
) -> None:
    before = fallbacks(CUDA)
    encoder = OnnxEncoder(bundle, provider=CUDA, fallback=True)
    encoder.show()
    expected = encoder.embed(images())
    assert (shown(bundle), fallbacks(CUDA)) == ({CUDA}, before)
    card.fault = fault
    asked = images() if fault else np.full_like(images(), 255)
    first = encoder.embed(asked)
    assert np.isfinite(first).all()
    assert (encoder.provider, shown(bundle), fallbacks(CUDA)) == (CPU, {CPU}, before + 1)
    card.fault = None
    np.testing.assert_array_equal(encoder.embed(images()), expected)
    assert fallbacks(CUDA) == before + 1
    encoder.hide()
    assert shown(bundle) == set()


def test_images_on_which_both_fail_are_not_the_fault_of_the_provider(
    bundle: Bundle, card: Card
) -> None:
    before = fallbacks(CUDA)
    encoder = OnnxEncoder(bundle, provider=CUDA, fallback=True)
    with pytest.raises(Exception, match="images"):
        encoder.embed(images()[:, :-1])
    assert (encoder.provider, fallbacks(CUDA)) == (CUDA, before)
    card.fault = RuntimeError("CUDA failure 700")
    with pytest.raises(Exception, match="images"):
        encoder.embed(images()[:, :-1])
    assert (encoder.provider, fallbacks(CUDA)) == (CUDA, before)


def test_without_leave_a_provider_that_fails_fails(bundle: Bundle, card: Card) -> None:
    encoder = OnnxEncoder(bundle, provider=CUDA)
    card.fault = RuntimeError("CUDA failure 700")
    with pytest.raises(RuntimeError, match="700"):
        encoder.embed(images())
    assert encoder.provider == CUDA
