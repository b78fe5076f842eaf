"""Adds metadata to every call of a channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from resight.client.caller import Metadata

__all__ = ["with_metadata"]

Continuation = Callable[[Any, Any], Any]


def with_metadata(channel: grpc.Channel, metadata: Callable[[], Metadata]) -> grpc.Channel:
    """The channel, with what ``metadata`` gives added to every call, after the call's own."""
    return grpc.intercept_channel(channel, _Adding(metadata))


class _Details(grpc.ClientCallDetails):
    def __init__(self, details: grpc.ClientCallDetails, more: Metadata) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = (*(details.metadata or ()), *more)
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class _Adding(
    grpc.UnaryUnaryClientInterceptor,  # type: ignore[type-arg]  # not generic when it runs
    grpc.UnaryStreamClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamUnaryClientInterceptor,  # type: ignore[type-arg]
    grpc.StreamStreamClientInterceptor,  # type: ignore[type-arg]
):
    def __init__(self, metadata: Callable[[], Metadata]) -> None:
        self._metadata = metadata

    def _added(self, details: grpc.ClientCallDetails) -> grpc.ClientCallDetails:
        return _Details(details, self._metadata())

    def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: Any, request: Any
    ) -> Any:
        """Go on with the metadata added."""
        return continuation(self._added(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: Any, request: Any
    ) -> Any:
        """Go on with the metadata added."""
        return continuation(self._added(client_call_details), request)

    def intercept_stream_unary(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Go on with the metadata added."""
        return continuation(self._added(client_call_details), request_iterator)

    def intercept_stream_stream(
        self, continuation: Continuation, client_call_details: Any, request_iterator: Any
    ) -> Any:
        """Go on with the metadata added."""
        return continuation(self._added(client_call_details), request_iterator)
