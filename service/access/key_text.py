"""The text of a key, ``rsk_<key id>_<secret>``, and the digest that is stored of it.

The secret is 256 random bits: nobody guesses it, so one SHA-256 is enough, and a slow hash would
only make every call slow.
"""

from __future__ import annotations

import hashlib
import re
import secrets

__all__ = ["digest_of", "key_id_of", "new_key_id", "new_text"]

_TEXT = re.compile(r"rsk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}", re.ASCII)


def new_key_id() -> str:
    """A public id of 64 random bits."""
    return secrets.token_hex(8)


def new_text(key_id: str) -> str:
    """A key of this id with a new secret."""
    return f"rsk_{key_id}_{secrets.token_urlsafe(32)}"


def key_id_of(text: str) -> str | None:
    """The id in a key; None for what is no key."""
    found = _TEXT.fullmatch(text)
    return None if found is None else found[1]


def digest_of(text: str) -> bytes:
    """SHA-256 of a key, 32 bytes."""
    return hashlib.sha256(text.encode()).digest()
