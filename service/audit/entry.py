"""What one entry says, and its only form as bytes.

The body is canonical JSON: keys sorted, no spaces, UTF-8, no NaN; numbers are integers wherever we
choose them. The digest is of these bytes, so they are stored as they are and never made anew. The
columns beside the body are copies, for queries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from service.domain.credential_text import has_credential, without_credentials

__all__ = [
    "CHAIN_BEGAN",
    "CHAIN_ENDED",
    "DENIED",
    "FAILED",
    "MAX_BODY",
    "PRUNED",
    "Entry",
    "Facts",
    "canonical",
    "columns_of",
    "stamped",
]

CHAIN_BEGAN = "audit/began"
CHAIN_ENDED = "audit/ended"
DENIED = "audit/denied"
FAILED = "audit/failed"
PRUNED = "audit/pruned"
VERSION = 1
MAX_BODY = 32 * 1024
MAX_PRINCIPAL = 200
MAX_ACTION = 100
MAX_GALLERY = 64

Facts = Mapping[str, Any]


def _plain(value: object) -> str:
    """Ids and times as text; bytes and vectors never."""
    if isinstance(value, UUID | datetime):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no note")


_ENCODER = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
)
_NUL = "\\u0000"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be recorded.

    Args:
        action: The RPC, or one of ``audit/…``.
        principal: Who.
        gallery: Where; empty for nowhere.
        facts: Everything else; JSON values.
    """

    action: str
    principal: str = ""
    gallery: str = ""
    facts: Facts = field(default_factory=dict)

    def columns(self) -> dict[str, str]:
        """What the columns beside the body hold."""
        return {
            "action": _text(self.action)[:MAX_ACTION],
            "principal": _text(self.principal)[:MAX_PRINCIPAL],
            "gallery": _text(self.gallery)[:MAX_GALLERY],
        }

    def body(self, time: datetime) -> str:
        """The canonical JSON of the entry, recorded at ``time``."""
        fixed = self.columns() | {"v": VERSION, "time": stamped(time)}
        said = dict(self.facts) | fixed
        try:
            text = canonical(said)
            if has_credential(text):
                said = {name: _hidden(value) for name, value in self.facts.items()} | fixed
                text = canonical(said)
        except (TypeError, ValueError):  # a note that is no JSON; the entry counts for more
            text = ""
        if text and len(text) <= MAX_BODY:
            return text
        return canonical(said | {"notes": {}, "notes_left_out": True})


def canonical(value: Mapping[str, Any]) -> str:
    """Canonical JSON; characters that are no text (lone surrogates, NUL) become U+FFFD."""
    text = _ENCODER.encode(value)
    # Nearly always there is nothing to clean, and every search comes by here.
    if _NUL in text or not _is_text(text):
        return _ENCODER.encode(_clean(value))
    return text


def stamped(time: datetime) -> str:
    """RFC 3339, UTC, with microseconds."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def columns_of(body: str) -> dict[str, str]:
    """The texts that the columns beside a body must hold.

    Raises:
        ValueError: the body is no entry.
    """
    said = json.loads(body)
    if not isinstance(said, dict):
        raise ValueError("no object")
    found = {name: said.get(name) for name in ("time", "action", "principal", "gallery")}
    if not all(isinstance(value, str) for value in found.values()):
        raise ValueError("time, action, principal or gallery is missing")
    return {name: str(value) for name, value in found.items()}


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, Mapping):
        return {_hidden(str(key)): _hidden(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(each) for each in value]
    return value


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value]
    return value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: str) -> str:
    return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
