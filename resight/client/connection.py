"""One channel to a service and the stubs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from resight.client.caller import Metadata, caller_metadata, exposure
from resight.client.diagnosis import diagnosis
from resight.client.faults import translated
from resight.client.metadata import with_metadata
from resight.client.shared_options import chosen
from resight.client.tls import Trust, chosen_trust, credentials_of
from resight.console import note
from resight.errors import Unavailable
from resight.v1.adaptation_service_pb2_grpc import AdaptationServiceStub
from resight.v1.admin_service_pb2_grpc import AdminServiceStub
from resight.v1.embed_service_pb2_grpc import EmbedServiceStub
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.model_service_pb2_grpc import ModelServiceStub
from resight.v1.search_service_pb2_grpc import SearchServiceStub

__all__ = ["DEFAULT_TARGET", "Connection", "connect"]

DEFAULT_TARGET = "127.0.0.1:7443"
MAX_MESSAGE_BYTES = 24 * 1024 * 1024
_CONNECT_SECONDS = 5.0
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A service that was restarted is found again within seconds, not two minutes.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # A machine that vanished without a word ends a waiting call.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)


@dataclass(frozen=True)
class Connection:
    """The stubs of ``resight.v1`` on one channel."""

    channel: grpc.Channel
    embed: EmbedServiceStub
    gallery: GalleryServiceStub
    search: SearchServiceStub
    adaptation: AdaptationServiceStub
    models: ModelServiceStub
    admin: AdminServiceStub


@contextmanager
def connect(
    target: str = DEFAULT_TARGET,
    *,
    metadata: Callable[[], Metadata] | None = None,
    trust: Trust | None = None,
) -> Iterator[Connection]:
    """Connects to ``host:port``, closes at the end, and raises the error tree for gRPC's errors.

    Args:
        target: Where the service listens.
        metadata: What is said with every call; by default the key and the purpose that the command
            line or the environment names.
        trust: Whether and how TLS is spoken, by default as they say, too.

    Raises:
        InvalidArgument: The key or the purpose cannot be one, or a file of TLS cannot be used.
        Unavailable: Nothing answers there, or not as is expected; the message says what does.
        ResightError: What a call inside was refused with.
    """
    if metadata is None:
        metadata = caller_metadata(**chosen("api_key_file", "purpose"))
    if trust is None:
        trust = chosen_trust(**chosen("tls", "ca_file", "client_cert_file", "client_key_file"))
    if not trust.wanted and any(name == "authorization" for name, _ in metadata()):
        warning = exposure(target)
        if warning is not None:
            note(warning)
    with _channel(target, trust) as plain:
        channel = with_metadata(plain, metadata)
        try:
            grpc.channel_ready_future(plain).result(timeout=_CONNECT_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise Unavailable(diagnosis(target, trust), field="target") from error
        with translated():
            yield Connection(
                channel,
                EmbedServiceStub(channel),
                GalleryServiceStub(channel),
                SearchServiceStub(channel),
                AdaptationServiceStub(channel),
                ModelServiceStub(channel),
                AdminServiceStub(channel),
            )


def _channel(target: str, trust: Trust) -> grpc.Channel:
    credentials = credentials_of(trust)
    if credentials is None:
        return grpc.insecure_channel(target, options=_OPTIONS)
    return grpc.secure_channel(target, credentials, options=_OPTIONS)
