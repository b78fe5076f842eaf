"""A deadline that the service knows it cannot meet, against a real encoder that takes its time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from onnx import TensorProto, helper, numpy_helper

from resight.bundle import write_bundle
from resight.client.connection import Connection, connect
from resight.crops import Preprocessing
from resight.v1 import bundle_pb2
from resight.v1.embed_service_pb2 import EmbedRequest

HEIGHT, WIDTH, FEATURES = 64, 32, 16


def slow_encoder() -> bytes:
    """Sixteen 7x7 filters over an image enlarged eight times each way: 0.6 GFLOP a crop."""
    random = np.random.default_rng(0)
    constants = {
        "sizes": np.array([1, 1, 8, 8], np.float32),
        "filters": random.standard_normal((FEATURES, 3, 7, 7)).astype(np.float32),
        "axis": np.array([1]),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Resize", ["planes", "", "sizes"], ["large"], mode="nearest"),
        helper.make_node("Conv", ["large", "filters"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("ReduceL2", ["flat", "axis"], ["norm"], keepdims=1),
        helper.make_node("Div", ["flat", "norm"], ["embeddings"]),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["b", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["b", FEATURES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


@pytest.fixture
def connection(start_serving: Callable[..., Any], tmp_path: Path) -> Iterator[Connection]:
    bundle = tmp_path / "slow"
    write_bundle(
        bundle,
        encoder=slow_encoder(),
        preprocessing=Preprocessing(HEIGHT, WIDTH, "bilinear"),
        provenance=bundle_pb2.Provenance(method="import"),
        model_card="# Slow\n",
    )
    one = {"RESIGHT_ENCODER__THREADS": "1"}
    with (
        start_serving(bundle, tmp_path / "data", **one) as service,
        connect(service.grpc) as connection,
    ):
        yield connection


def reason(error: Any) -> str:
    """The service's reason; empty when the client's own clock ended the call."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    return info.reason if status is not None and status.details[0].Unpack(info) else ""


def test_a_deadline_that_cannot_be_met_is_refused_with_a_reason(
    connection: Connection, make_jpeg: Callable[..., bytes]
) -> None:
    request = EmbedRequest(image=make_jpeg(1))
    times = []
    for _ in range(3):
        begun = time.monotonic()
        connection.embed.Embed(request)
        times.append(time.monotonic() - begun)
    # Now the service knows how long an image takes it: a quarter of that is not enough, and still
    # long enough for its refusal, except while this machine stands still.
    until, refused = time.monotonic() + 120, ""
    while refused != "DEADLINE_TOO_SHORT":
        assert time.monotonic() < until, f"never told in time: {refused}"
        with pytest.raises(grpc.RpcError) as caught:
            connection.embed.Embed(request, timeout=min(times) / 4)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        refused = reason(caught.value)
    assert connection.embed.Embed(request, timeout=60).embedding.values, "time enough is enough"
