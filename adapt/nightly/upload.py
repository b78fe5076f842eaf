"""A candidate's way to the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from adapt.gate import Verdict
from adapt.nightly.lease import Lease, patiently
from resight.client.model_upload import SECONDS, announced, parts
from resight.v1 import model_service_pb2 as messages
from resight.v1.model_service_pb2_grpc import ModelServiceStub

__all__ = ["register", "verdict_message"]

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
    upload = announced(archive, **lease.key)
    if verdict is not None:
        upload.gate.CopyFrom(verdict_message(verdict))

    def send() -> messages.RegisterModelResponse:
        lease.require()
        response: messages.RegisterModelResponse = stub.RegisterModel(
            parts(upload, archive), timeout=SECONDS
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
