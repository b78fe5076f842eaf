"""A bundle's way to the service, which keeps it as a candidate."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resight.bundle import open_bundle
from resight.bundle.archive import pack
from resight.v1 import model_service_pb2 as messages
from resight.v1.model_service_pb2_grpc import ModelServiceStub

__all__ = ["SECONDS", "announced", "archive_of", "parts", "register"]

CHUNK = 1024 * 1024
# For receiving, verifying and storing it.
SECONDS = 900.0


@contextmanager
def archive_of(bundle: Path) -> Iterator[Path]:
    """The ``.tar`` of a bundle, packed when it is a folder; every digest is verified first.

    Raises:
        InvalidArgument: There is nothing at that path.
        BundleCorrupt: It is no bundle, or not what its digests say.
    """
    open_bundle(bundle, golden=False)
    if not bundle.is_dir():
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="resight-upload-") as folder:
        archive = Path(folder) / "bundle.tar"
        pack(bundle, archive)
        yield archive


def announced(archive: Path, **fields: Any) -> messages.ModelUpload:
    """What is told of an archive before it is sent: its size and SHA-256, and these fields."""
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
    return messages.ModelUpload(sha256=digest, size_bytes=archive.stat().st_size, **fields)


def parts(upload: messages.ModelUpload, archive: Path) -> Iterator[messages.RegisterModelRequest]:
    """The announcement, then the archive, a megabyte at a time."""
    yield messages.RegisterModelRequest(upload=upload)
    with archive.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            yield messages.RegisterModelRequest(chunk=chunk)


def register(stub: ModelServiceStub, gallery: str, archive: Path) -> messages.Model:
    """Registers a bundle's ``.tar`` as a candidate, by hand: without a run, and without a verdict.

    Raises:
        RpcError: As ``ModelService.RegisterModel``.
    """
    upload = announced(archive, gallery=gallery)
    response: messages.RegisterModelResponse = stub.RegisterModel(
        parts(upload, archive), timeout=SECONDS
    )
    return response.model
