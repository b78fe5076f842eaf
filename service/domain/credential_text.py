"""Credentials that somebody wrote where a name, a reason or a purpose belongs."""

from __future__ import annotations

import re

__all__ = ["HIDDEN", "has_credential", "without_credentials"]

HIDDEN = "(credential)"
# An API key or a JWT.
_CREDENTIAL = re.compile(
    r"rsk_[0-9a-f]{16}_[A-Za-z0-9_-]{20,}|eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]+)+", re.ASCII
)


def has_credential(text: str) -> bool:
    """Whether part of it looks like an API key or a JWT."""
    return _CREDENTIAL.search(text) is not None


def without_credentials(text: str) -> str:
    """The text with ``(credential)`` for each that it holds."""
    return _CREDENTIAL.sub(HIDDEN, text)
