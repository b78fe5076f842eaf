"""The JSON of the audit."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel

from service.application.auditing import Verified
from service.catalog.audit import StoredEntry

__all__ = ["AuditEntry", "AuditEntryPage", "AuditVerdict"]

_MOST_FAULTS = 1000


class AuditEntry(BaseModel):
    """One entry of one hash chain; the digest is of ``body``, byte for byte."""

    chain_id: str
    sequence: int
    record_time: datetime
    principal: str
    action: str
    gallery: str
    purpose: str
    outcome: str
    request_id: str
    body: str
    digest: str

    @classmethod
    def of(cls, entry: StoredEntry) -> Self:
        """From what is stored."""
        try:
            said: Any = json.loads(entry.body)
        except ValueError:  # altered; verification tells
            said = {}
        named = said if isinstance(said, dict) else {}
        return cls(
            chain_id=entry.chain_id.hex,
            sequence=entry.sequence,
            record_time=entry.record_time,
            principal=entry.principal,
            action=entry.action,
            gallery=entry.gallery,
            purpose=str(named.get("purpose", "")),
            outcome=str(named.get("outcome", "")),
            request_id=str(named.get("request_id", "")),
            body=entry.body,
            digest=entry.digest.hex(),
        )


class AuditEntryPage(BaseModel):
    """A page of entries."""

    entries: list[AuditEntry]
    next_page_token: str


class AuditFault(BaseModel):
    """One thing wrong; sequence 0 is no entry in particular."""

    chain_id: str
    sequence: int
    description: str


class AuditSigner(BaseModel):
    """A key that signs checkpoints and receipts."""

    signer: str
    public_key: str


class AuditVerdict(BaseModel):
    """The verdict, with the keys that the service holds and used."""

    chains: int
    entries: int
    checkpoints: int
    unsigned_entries: int
    faults: list[AuditFault]
    signers: list[AuditSigner]

    @classmethod
    def of(cls, found: Verified) -> Self:
        """From the application's value."""
        verdict = found.verdict
        return cls(
            chains=verdict.chains,
            entries=verdict.entries,
            checkpoints=verdict.checkpoints,
            unsigned_entries=verdict.unsigned_entries,
            faults=[
                AuditFault(
                    chain_id=fault.chain_id,
                    sequence=fault.sequence,
                    description=fault.description,
                )
                for fault in verdict.faults[:_MOST_FAULTS]
            ],
            signers=[
                AuditSigner(signer=signer, public_key=pem)
                for signer, pem in found.public_keys.items()
            ],
        )
