"""The gRPC listener: services, health, reflection, and limits set on purpose."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from resight.errors import FailedPrecondition
from resight.v1 import (
    adaptation_service_pb2,
    adaptation_service_pb2_grpc,
    admin_service_pb2,
    admin_service_pb2_grpc,
    embed_service_pb2,
    embed_service_pb2_grpc,
    gallery_service_pb2,
    gallery_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
)
from service.access.gate import Gate
from service.serving_settings import GrpcSettings
from service.transport.address import bound_socket, joined
from service.transport.grpc.adaptation_servicer import AdaptationServicer
from service.transport.grpc.admin_servicer import AdminServicer
from service.transport.grpc.embed_servicer import EmbedServicer
from service.transport.grpc.gallery_servicer import GalleryServicer
from service.transport.grpc.health import Health
from service.transport.grpc.ingest_room import IngestRoom
from service.transport.grpc.interceptor import CallInterceptor
from service.transport.grpc.model_servicer import ModelServicer
from service.transport.grpc.search_servicer import SearchServicer
from service.transport.use_cases import UseCases

__all__ = ["GrpcServer"]

_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # More pings than that end a connection (ENHANCE_YOUR_CALM).
    ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ("grpc.http2.max_ping_strikes", 2),
)
# For TLS and the first words of HTTP/2; else whoever says nothing keeps a connection two minutes.
HANDSHAKE_SECONDS = 30.0
_FILES = (
    adaptation_service_pb2,
    admin_service_pb2,
    embed_service_pb2,
    gallery_service_pb2,
    model_service_pb2,
    search_service_pb2,
)
SERVICES = tuple(
    service.full_name for file in _FILES for service in file.DESCRIPTOR.services_by_name.values()
)


class GrpcServer:
    """One listener on the running event loop: ``bind``, then ``serve``, then ``stop``.

    Args:
        settings: Bounds of messages, calls and connections.
        with_reflection: Whether clients can list the public services.
    """

    def __init__(self, settings: GrpcSettings, *, with_reflection: bool) -> None:
        self.health = Health(SERVICES)
        self._with_reflection = with_reflection
        self._interceptor = CallInterceptor(settings.max_concurrent_rpcs)
        self._server = grpc.aio.server(
            interceptors=(self._interceptor,),
            options=(
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Two processes on one port would each answer half the calls.
                ("grpc.so_reuseport", 0),
                *_KEEPALIVE,
                *_connection_bounds(settings),
            ),
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
        )

    def bind(self, host: str, port: int, credentials: grpc.ServerCredentials | None = None) -> int:
        """Take the address, with TLS where there are credentials; returns the port. Calls wait
        until ``serve``.

        Raises:
            FailedPrecondition: The address cannot be bound.
        """
        # gRPC would write its own lines about a taken port to stderr, so it is tried here first.
        bound_socket(host, port, listener="grpc").close()
        try:
            if credentials is not None:
                return self._server.add_secure_port(joined(host, port), credentials)
            return self._server.add_insecure_port(joined(host, port))
        except RuntimeError as error:
            raise FailedPrecondition(
                f"grpc.port: cannot listen on {joined(host, port)}; choose another with "
                "--grpc-port (0 takes a free one)",
                field="grpc.port",
            ) from error

    async def serve(
        self,
        use_cases: UseCases,
        *,
        gate: Gate,
        draining: asyncio.Event,
        max_in_flight_per_stream: int,
        room: IngestRoom,
    ) -> None:
        """Answer calls.

        Args:
            use_cases: What is served.
            gate: Passed by every call.
            draining: Set when the service begins to stop.
            max_in_flight_per_stream: Items of one ingest stream worked on at the same time.
            room: What all ingest streams may have in work.
        """
        self._interceptor.gate = gate
        gallery = GalleryServicer(
            use_cases.cameras,
            use_cases.crops,
            use_cases.ingest,
            use_cases.verification,
            draining=draining,
            max_in_flight_per_stream=max_in_flight_per_stream,
            room=room,
        )
        server: Any = self._server
        embed_service_pb2_grpc.add_EmbedServiceServicer_to_server(
            EmbedServicer(use_cases.embed), server
        )
        search_service_pb2_grpc.add_SearchServiceServicer_to_server(
            SearchServicer(
                use_cases.search,
                use_cases.search_batch,
                use_cases.track_person,
                use_cases.travel_times,
            ),
            server,
        )
        gallery_service_pb2_grpc.add_GalleryServiceServicer_to_server(gallery, server)
        adaptation_service_pb2_grpc.add_AdaptationServiceServicer_to_server(
            AdaptationServicer(
                use_cases.adaptation, use_cases.runs, use_cases.crop_stream, draining=draining
            ),
            server,
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(use_cases.registry, use_cases.lifecycle), server
        )
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(use_cases), server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, server)
        if self._with_reflection:
            names = (*SERVICES, "grpc.health.v1.Health", reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no new calls, give those running ``grace`` seconds, then cancel them."""
        if grace:
            await self._interceptor.refuse(grace)
        await self._server.stop(grace)


def _connection_bounds(settings: GrpcSettings) -> Iterator[tuple[str, int]]:
    yield "grpc.max_concurrent_streams", settings.max_concurrent_streams
    yield "grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)
    yield "grpc.max_connection_idle_ms", int(settings.max_connection_idle_seconds * 1000)
    yield "grpc.max_connection_age_ms", int(settings.max_connection_age_seconds * 1000)
    # Unset it is for ever: streams of an old connection go on, new calls take a new one.
    if settings.max_connection_age_grace_seconds is not None:
        grace = int(settings.max_connection_age_grace_seconds * 1000)
        yield "grpc.max_connection_age_grace_ms", grace
