"""A candidate's way to the service."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from adapt.gate import Verdict
from adapt.nightly.lease import Lease, patiently
from resight.v1 import model_service_pb2 as messages
from resight.v1.model_service_pb2_grpc import ModelServiceStub

__all__ = ["register", "verdict_message"]

_CHUNK = 1024 * 1024
_SECONDS = 900.0
_MAX_REASONS = 32
_MAX_REASON = 500


def register(
    stub: ModelServiceStub, lease: Lease, archive: Path, verdict: Verdict | None
) -> messages.Model:
    """Registers a bundle's ``.tar`` as a candidate of the lease's gallery.

    The same archive may be sent again, so a broken upload is repeated.

    Raises:
        FailedPrecondition: The lease is lost, or the service refuses the bundle.
        AlreadyExists: The gallery knows the encoder: nothing was learnt.
        Unavailable: The service went away and did not come back.
    """
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
    upload = messages.ModelUpload(
        **lease.key,
        sha256=digest,
        size_bytes=archive.stat().st_size,
        gate=None if verdict is None else verdict_message(verdict),
    )

    def send() -> messages.RegisterModelResponse:
        lease.require()
        response: messages.RegisterModelResponse = stub.RegisterModel(
            _parts(upload, archive), timeout=_SECONDS
        )
        return response

    return patiently(send, seconds=lease.patience).model


def verdict_message(verdict: Verdict) -> messages.GateVerdict:
    """The gate's answer as the service keeps it."""
    outcome = messages.GateVerdict.Outcome
    payload: dict[str, Any] = verdict.payload()
    return messages.GateVerdict(
        outcome=outcome.OUTCOME_PASSED if verdict.passed else outcome.OUTCOME_REFUSED,
        score=verdict.score,
        reasons=[reason[:_MAX_REASON] for reason in verdict.reasons[:_MAX_REASONS]],
        report=json_format.ParseDict(payload, Struct()),
    )


def _parts(upload: messages.ModelUpload, archive: Path) -> Iterator[messages.RegisterModelRequest]:
    yield messages.RegisterModelRequest(upload=upload)
    with archive.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield messages.RegisterModelRequest(chunk=chunk)
