"""The hash chain.

With ``c`` the 16 bytes of the chain's id, ``b_n`` the body of entry ``n`` in UTF-8, ``u64`` eight
bytes, the most significant first, and ``|`` concatenation:

    d_0 = SHA-256("resight audit chain 1" | c)
    d_n = SHA-256(d_(n-1) | c | u64(n) | b_n)         n = 1, 2, …

``c``, ``n`` and the digest before are of fixed length, so no two entries have the same input. A
chain that nobody signed can be computed anew by whoever can write it; what is signed is d_n with
its place (``checkpoints``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

__all__ = ["Head", "beginning", "following"]

_SEED = b"resight audit chain 1"


@dataclass(frozen=True, slots=True)
class Head:
    """The newest entry of a chain; sequence 0 before the first."""

    chain_id: UUID
    sequence: int
    digest: bytes


def beginning(chain_id: UUID) -> Head:
    """A chain without entries."""
    return Head(chain_id, 0, hashlib.sha256(_SEED + chain_id.bytes).digest())


def following(head: Head, body: str) -> Head:
    """The head after an entry with this body was added."""
    sequence = head.sequence + 1
    digest = hashlib.sha256(head.digest)
    digest.update(head.chain_id.bytes)
    digest.update(sequence.to_bytes(8, "big"))
    digest.update(body.encode())
    return Head(head.chain_id, sequence, digest.digest())
