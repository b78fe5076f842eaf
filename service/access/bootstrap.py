"""The key that the operator gives at start, so that the first keys can be made over the API."""

from __future__ import annotations

import logging
import os
import re
import stat
from pathlib import Path

from resight.errors import InvalidArgument
from service.access.key_text import digest_of
from service.domain.principal import EVERYTHING, Principal

__all__ = ["BOOTSTRAP", "bootstrap_digest"]

logger = logging.getLogger(__name__)

BOOTSTRAP = Principal("key:bootstrap", "key", EVERYTHING)
SETTING = "access.bootstrap_key_file"
MIN_LENGTH = 32
MAX_LENGTH = 512
MIN_DIFFERENT = 10

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
# Long ones alone: random text holds none of them by chance.
_PLACEHOLDERS = (
    "change-me",
    "changeme",
    "change_me",
    "placeholder",
    "password",
    "example",
    "replace",
)


def bootstrap_digest(file: Path) -> bytes:
    """SHA-256 of the key in a file.

    Raises:
        InvalidArgument: it cannot be read, is too short, or stands for a key that nobody chose.
    """
    try:
        text = file.read_text(encoding="ascii").strip()
        mode = file.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise _refused(file, f"cannot be read ({why}); correct the path or its rights") from error
    fault = _fault(text)
    if fault is not None:
        raise _refused(file, f"{fault}; make one with `openssl rand -hex 32`")
    if mode & stat.S_IROTH and os.name == "posix":
        logger.warning(
            "%s=%s can be read by every user who reaches it; let it belong to the service's user "
            "with mode 0400, or close the folder that it comes from to others",
            SETTING,
            file,
        )
    return digest_of(text)


def _fault(text: str) -> str | None:
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        return f"holds {len(text)} characters where {MIN_LENGTH} to {MAX_LENGTH} are needed"
    if not _TOKEN.fullmatch(text):
        return "holds other characters than [A-Za-z0-9._~+/=-]"
    lowered = text.lower()
    if len(set(text)) < MIN_DIFFERENT or any(word in lowered for word in _PLACEHOLDERS):
        return "holds a placeholder, not a random key"
    return None


def _refused(file: Path, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"setting {SETTING} (RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE): {file} {why}", field=SETTING
    )
