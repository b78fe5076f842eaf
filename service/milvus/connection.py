"""The client of Milvus: a server's, or an embedded milvus-lite's."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from resight.errors import FailedPrecondition, Unavailable

__all__ = ["connect", "is_server", "translated"]

# The client pings every ten seconds. milvus-lite's server, in this process, takes that for a flood,
# closes the connection and fails the calls on it ("Too many pings").
_NO_PINGS = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": False}


def connect(uri: str, *, token: str = "", database: str = "", timeout: float = 30.0) -> Any:
    """A pymilvus client.

    Args:
        uri: ``http://host:19530`` of a server, or the path of a milvus-lite file.
        token: ``user:password`` or an API key; empty for none.
        database: Database of the server; empty for its default.
        timeout: Seconds for connecting.

    Raises:
        FailedPrecondition: the extra ``milvus`` is not installed.
        Unavailable: no server answers.
    """
    try:
        pymilvus = importlib.import_module("pymilvus")
        if not is_server(uri):
            importlib.import_module("milvus_lite")
    except ImportError as error:
        raise FailedPrecondition(
            f"index.backend is milvus, but {error.name or 'pymilvus'} is not installed; "
            "install resight[service-cpu,milvus]",
            field="index.backend",
            reason="EXTRA_MISSING",
        ) from error
    what, options = f"milvus.uri {uri!r}", {}
    if not is_server(uri):
        what += " (a milvus-lite file, which one process at a time may open)"
        options = {"grpc_options": _NO_PINGS}
    with translated(what):
        return pymilvus.MilvusClient(
            uri=uri, token=token, db_name=database, timeout=timeout, **options
        )


def is_server(uri: str) -> bool:
    """Whether the URI names a server, not a file."""
    return "://" in uri


@contextmanager
def translated(what: str) -> Iterator[None]:
    """What pymilvus and gRPC raise, as an error of ours."""
    pymilvus = importlib.import_module("pymilvus")
    try:
        yield
    except (pymilvus.MilvusException, grpc.RpcError) as error:
        details = getattr(error, "message", "") or getattr(error, "details", lambda: "")() or error
        raise Unavailable(
            "the index (Milvus) does not answer; try again",
            detail=f"{what}: {details}; see to the Milvus server (milvus.uri)",
            field="milvus.uri",
            reason="MILVUS_FAILED",
        ) from error
