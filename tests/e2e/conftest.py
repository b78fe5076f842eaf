"""Real `resight serve` processes with a small real encoder, and crops to send them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from resight.bundle import write_bundle
from resight.client import connection as client
from resight.client.connection import Connection, connect
from resight.crops import Preprocessing
from resight.v1 import bundle_pb2
from tests.e2e import forked
from tests.e2e.retrieval_site import Site, calibrated, served_site

RESIGHT = Path(sys.executable).with_name("resight")
HEIGHT, WIDTH = 64, 32
Process = subprocess.Popen[str] | forked.ForkedProcess
# A client that is in a hurry takes a service of a busy machine for one that is not there.
client._CONNECT_SECONDS = 60.0


@dataclass
class ServiceProcess:
    """A running service."""

    process: Process
    grpc: str
    rest: str
    model: str
    crops: int
    log: Path
    probes: str | None = None

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(120)


Serve = Callable[..., ServiceProcess]


def tiny_encoder(height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """Means of 8x8 pixel blocks, centred, of unit length; a crop with a white top row fails it.

    Embeddings (B, 3 * (height // 8) * (width // 8)). The minimum of the top row indexes a table of
    255 rows, so 255 is out of its bounds and ONNX Runtime fails the whole batch.
    """
    features = 3 * (height // 8) * (width // 8)
    constants = {
        "scale": np.array(1 / 255, np.float32),
        "half": np.array(0.5, np.float32),
        "epsilon": np.array([1e-12], np.float32),
        "table": np.zeros((255, features), np.float32),
        "first": np.array([0]),
        "second": np.array([1]),
        "row": np.array([1]),
        "pixels": np.array([1, 2, 3]),
        "features": np.array([1]),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["float", "first", "second", "row"], ["top"]),
        helper.make_node("ReduceMin", ["top", "pixels"], ["lowest"], keepdims=0),
        helper.make_node("Cast", ["lowest"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["nothing"]),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "half"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Add", ["flat", "nothing"], ["sum"]),
        helper.make_node("ReduceL2", ["sum", "features"], ["norm"], keepdims=1),
        helper.make_node("Max", ["norm", "epsilon"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["b", height, width, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["b", features])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def jpeg(seed: int, *, height: int = 128, width: int = 64) -> bytes:
    """A blocky image of its own, as JPEG."""
    blocks = np.random.default_rng(seed).integers(0, 230, (8, 4, 3), np.uint8)
    image = Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
    return encoded(image, "JPEG")


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def make_jpeg() -> Callable[..., bytes]:
    return jpeg


@pytest.fixture(scope="session")
def white_png() -> bytes:
    """The image on which the tiny encoder fails."""
    return encoded(Image.new("RGB", (64, 128), (255, 255, 255)), "PNG")


def tiny_bundle_at(output: Path, *, height: int = HEIGHT, card: str = "# Tiny\n") -> Path:
    """A bundle of the tiny encoder; the height decides its version."""
    write_bundle(
        output,
        encoder=tiny_encoder(height),
        preprocessing=Preprocessing(height, WIDTH, "bilinear"),
        provenance=bundle_pb2.Provenance(method="import"),
        model_card=card,
    )
    return output


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle_at(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """``make_bundle(output, height=48, card=...)``: another version than the one that is served."""
    return lambda output, height=48, **told: tiny_bundle_at(output, height=height, **told)


@contextmanager
def serving(
    bundle: Path, data: Path, *options: str, **environment: str
) -> Iterator[ServiceProcess]:
    data.mkdir(parents=True, exist_ok=True)
    log = data / "service.log"
    command = [
        "serve", "--bundle", str(bundle), "--data", str(data),
        "--grpc-port", "0", "--rest-port", "0", *options,
    ]  # fmt: skip
    everything = os.environ | environment
    process: Process
    with log.open("a") as stderr:
        if forked.fit(everything):
            process = forked.started(command, everything, stderr=stderr.fileno())
        else:
            process = subprocess.Popen(
                [str(RESIGHT), *command],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=everything,
            )
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("ready "), f"not ready: {line!r} {log.read_text()}"
        told = dict(part.split("=", 1) for part in line.split()[1:])
        yield ServiceProcess(
            process,
            told["grpc"],
            told["rest"],
            told["model"],
            int(told["crops"]),
            log,
            told.get("probes"),
        )
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture(scope="session")
def start_service(tiny_bundle: Path) -> Callable[..., object]:
    """``with start_service(data, *options, **environment) as service``."""
    return lambda data, *options, **environment: serving(tiny_bundle, data, *options, **environment)


@pytest.fixture(scope="session")
def start_serving() -> Callable[..., object]:
    """``with start_serving(bundle, data, *options, **environment) as service``."""
    return serving


@contextmanager
def catalog_of(kind: str, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment of a service with an empty catalog of this kind."""
    if kind == "sqlite":
        yield {}
        return
    with request.getfixturevalue("postgresql_server").database() as url:
        environment = {"RESIGHT_DATABASE_URL": url}
        done = forked.completed(["db", "upgrade"], os.environ | environment, timeout=120)
        assert done.returncode == 0, done.stderr
        yield environment


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """``start_service(data, **catalog)``, as often as the test likes, on either database."""
    with catalog_of(request.param, request) as environment:
        yield environment


@pytest.fixture(scope="session")
def service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path
) -> Iterator[ServiceProcess]:
    """One service for all tests that use galleries of their own; on SQLite, unless a module is
    parametrised (indirectly) by the database.
    """
    data = tmp_path_factory.mktemp("service")
    with (
        catalog_of(getattr(request, "param", "sqlite"), request) as environment,
        serving(tiny_bundle, data, **environment) as process,
    ):
        yield process
        assert process.process.poll() is None, "a test killed the shared service"


@pytest.fixture
def connection(service: ServiceProcess) -> Iterator[Connection]:
    """A client of the service for all tests."""
    with connect(service.grpc) as connected:
        yield connected


@pytest.fixture(scope="session")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A gallery of known vectors behind a calibrated encoder, for tests that do not change it; on
    the database that a module is parametrised by (indirectly).
    """
    root = tmp_path_factory.mktemp("site")
    bundle = calibrated(tiny_bundle_at(root / "bundle"))
    with (
        catalog_of(getattr(request, "param", "sqlite"), request) as environment,
        serving(bundle, root / "data", **environment) as process,
        served_site(process, jpeg) as made,
    ):
        yield made
