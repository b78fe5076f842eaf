"""Signed statements about a chain.

    m = "resight audit checkpoint 1" | kind | 0 | c | u64(n) | i64(t) | d_n
    s = Ed25519(private key, m)

``kind`` is ``head``: at time ``t`` (microseconds since 1970) the chain ``c`` had ``n`` entries and
its digest was ``d_n``; or ``base``: what came up to ``n`` was removed because it was too old, and
verification starts from ``d_n``. Only who has the key can say either.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from service.audit.chain import Head
from service.audit.entry import canonical
from service.domain.instant import from_micros, to_micros
from service.signing import PublicKeys, SigningKey

__all__ = ["BASE", "HEAD", "Checkpoint", "Kind", "sign"]

Kind = Literal["head", "base"]
HEAD: Kind = "head"
BASE: Kind = "base"
_SEED = b"resight audit checkpoint 1"
_MICROS_BYTES = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A statement with its signature."""

    chain_id: UUID
    sequence: int
    kind: str
    record_time: datetime
    digest: bytes
    signer: str
    signature: bytes

    def holds(self, keys: PublicKeys) -> bool:
        """Whether the signature is that of its signer."""
        return keys.verify(
            _message(
                self.kind,
                Head(self.chain_id, self.sequence, self.digest),
                to_micros(self.record_time),
            ),
            self.signature,
            self.signer,
        )

    def to_json(self, public_key: str) -> str:
        """As it is copied outside, with the key that confirms it."""
        return canonical(
            {
                "chain_id": self.chain_id.hex,
                "sequence": self.sequence,
                "kind": self.kind,
                "record_micros": to_micros(self.record_time),
                "digest": self.digest.hex(),
                "signer": self.signer,
                "signature": self.signature.hex(),
                "public_key": public_key,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Checkpoint:
        """What ``to_json`` wrote.

        Raises:
            ValueError: it is nothing of the kind.
        """
        try:
            said = json.loads(text)
            return cls(
                chain_id=UUID(hex=said["chain_id"]),
                sequence=int(said["sequence"]),
                kind=str(said["kind"]),
                record_time=from_micros(int(said["record_micros"])),
                digest=bytes.fromhex(said["digest"]),
                signer=str(said["signer"]),
                signature=bytes.fromhex(said["signature"]),
            )
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"no checkpoint: {error!r}") from error


def sign(key: SigningKey, head: Head, time: datetime, kind: Kind = HEAD) -> Checkpoint:
    """A statement about a chain, made now."""
    return Checkpoint(
        chain_id=head.chain_id,
        sequence=head.sequence,
        kind=kind,
        record_time=time,
        digest=head.digest,
        signer=key.signer,
        signature=key.sign(_message(kind, head, to_micros(time))),
    )


def _message(kind: str, head: Head, micros: int) -> bytes:
    return b"".join(
        (
            _SEED,
            kind.encode(),
            b"\0",
            head.chain_id.bytes,
            head.sequence.to_bytes(8, "big", signed=True),
            micros.to_bytes(_MICROS_BYTES, "big", signed=True),
            head.digest,
        )
    )
