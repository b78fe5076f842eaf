"""A process whose encoder is dead must not look alive."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import service.encoder.opening
from resight.v1 import embed_service_pb2, embed_service_pb2_grpc
from service.encoder.onnx import OnnxEncoder
from service.runtime import Runtime
from service.settings import load_settings


class MortalEncoder(OnnxEncoder):
    """The real encoder, until it is told to fail."""

    dead = False

    def embed(self, images: Any) -> Any:
        if MortalEncoder.dead:
            raise RuntimeError("device lost")
        return super().embed(images)


def test_a_dead_encoder_ends_the_process_with_exit_code_1(
    tiny_bundle: Path, tmp_path: Path, make_jpeg: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.encoder.opening, "OnnxEncoder", MortalEncoder)
    settings = load_settings(
        {
            "bundle": tiny_bundle,
            "data_dir": tmp_path,
            "grpc": {"port": 0},
            "rest": {"port": 0},
        }
    )

    async def scenario() -> int:
        runtime = await Runtime.start(settings)
        ended = asyncio.create_task(runtime.serve_until_stopped())
        async with grpc.aio.insecure_channel(runtime.endpoints.grpc) as channel:
            stub = embed_service_pb2_grpc.EmbedServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel)
            request = embed_service_pb2.EmbedRequest(image=make_jpeg(1))
            await stub.Embed(request)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=""))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            MortalEncoder.dead = True
            calls = await asyncio.gather(
                *(stub.Embed(request) for _ in range(8)), return_exceptions=True
            )
            assert {call.code() for call in calls} <= {
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.CANCELLED,
            }
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        return await asyncio.wait_for(ended, 120)

    try:
        assert asyncio.run(scenario()) == 1
    finally:
        MortalEncoder.dead = False
