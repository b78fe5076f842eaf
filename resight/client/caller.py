"""Who this process is to a service, and why it asks: its key and its purpose."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from resight.errors import InvalidArgument

__all__ = ["API_KEY", "API_KEY_FILE", "PURPOSE", "Metadata", "caller_metadata", "exposure"]

API_KEY = "RESIGHT_API_KEY"
API_KEY_FILE = "RESIGHT_API_KEY_FILE"
PURPOSE = "RESIGHT_PURPOSE"
MAX_PURPOSE = 200
MAX_KEY = 16 * 1024

Metadata = Sequence[tuple[str, str]]

_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)


def caller_metadata(
    *, api_key_file: Path | None = None, purpose: str | None = None
) -> Callable[[], Metadata]:
    """What to say with every call, from the arguments, else from the environment.

    A file is read again for every call, because tokens of an orchestrator are replaced while a
    night runs; where it cannot be read then, what was read last is sent.

    Raises:
        InvalidArgument: a key that can be none, in two places, or a file that cannot be read; a
            purpose that is no text. No message shows the key.
    """
    declared = _purpose(os.environ.get(PURPOSE, "") if purpose is None else purpose)
    file = api_key_file or _named_file()
    if file is None:
        key = os.environ.get(API_KEY, "")
        fixed = [*_authorization(_checked(key, API_KEY)), *declared] if key else declared
        return lambda: fixed
    newest = _read(file)

    def current() -> Metadata:
        nonlocal newest
        with suppress(InvalidArgument):
            newest = _read(file)
        return [*_authorization(newest), *declared]

    return current


def exposure(target: str) -> str | None:
    """What to warn of when a key is sent to ``host:port`` in plaintext; None on this machine."""
    host = target.rpartition(":")[0].strip("[]")
    try:
        near = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        near = target.startswith("unix:")
    if near:
        return None
    return (
        f"warning: the key goes to {target} in plaintext, for whoever listens on the way; use "
        "--tls or --ca-file, unless a mesh encrypts it"
    )


def _named_file() -> Path | None:
    name = os.environ.get(API_KEY_FILE, "")
    if name and os.environ.get(API_KEY):
        raise InvalidArgument(
            f"{API_KEY} and {API_KEY_FILE} are both set; unset one of them", field=API_KEY
        )
    return Path(name) if name else None


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"{file} holds no key; it is one line of ASCII", field=API_KEY_FILE
        ) from error
    except OSError as error:
        raise InvalidArgument(
            f"{file}: the key cannot be read ({error.strerror}); correct --api-key-file or "
            f"{API_KEY_FILE}, or the file's rights",
            field=API_KEY_FILE,
        ) from error
    return _checked(text.strip(), str(file))


def _checked(key: str, place: str) -> str:
    if len(key) > MAX_KEY or not _TOKEN.fullmatch(key):
        raise InvalidArgument(
            f"{place} holds no key: send one such as rsk_…, as `resight keys create` showed it, or "
            "a JWT, without quotes and spaces",
            field=API_KEY,
        )
    return key


def _authorization(key: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {key}")]


def _purpose(text: str) -> list[tuple[str, str]]:
    purpose = text.strip()
    if len(purpose) > MAX_PURPOSE or not purpose.isprintable():
        raise InvalidArgument(
            f"--purpose ({PURPOSE}) is longer than {MAX_PURPOSE} characters or has unprintable "
            "ones; say why in a few words",
            field="purpose",
        )
    return [("resight-purpose", quote(purpose, safe=""))] if purpose else []
