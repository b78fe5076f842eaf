"""Erasure receipts checked: Ed25519 (RFC 8032) over the canonical JSON of what they say.

canonical: keys sorted, no blanks, UTF-8. A signer is named by the first 16 hex digits of the
SHA-256 of the 32 bytes of its public key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resight.errors import DataLoss, InvalidArgument

__all__ = ["VerifiedReceipt", "verified"]


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt says, by whom, and whether with a key that the caller named."""

    receipt: dict[str, Any]
    signer: str
    trusted: bool


def verified(path: Path, public_keys: Sequence[Path]) -> VerifiedReceipt:
    """A receipt whose signature holds.

    Args:
        path: The receipt, JSON.
        public_keys: PEM files; with any, it must be signed by one of them. Without, the key in the
            receipt is used, which proves that nothing was altered but not by whom it was signed.

    Raises:
        InvalidArgument: it is no receipt, or a key is none.
        DataLoss: the signature does not hold, or is nobody's who was named.
    """
    from cryptography.exceptions import InvalidSignature

    try:
        whole = json.loads(path.read_bytes())
        told, signature = whole["receipt"], whole["signature"]
        value = base64.b64decode(signature["value"], validate=True)
        own_pem, algorithm = str(signature["public_key"]).encode(), signature["algorithm"]
        # What is shown of it must be there.
        _ = told["erasure_id"], told["complete_time"], told["crops"]["removed"]["count"]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise InvalidArgument(f"{path} is no erasure receipt", field="file") from error
    if algorithm != "Ed25519":
        raise InvalidArgument(f"{path} is signed with {algorithm!r}, not Ed25519", field="file")
    pems = [key.read_bytes() for key in public_keys] or [own_pem]
    message = json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    for pem in pems:
        key, signer = _key(pem)
        try:
            key.verify(value, message)
        except InvalidSignature:
            continue
        return VerifiedReceipt(told, signer, bool(public_keys))
    raise DataLoss(
        f"{path}: the signature does not hold: the receipt was altered, or it was not signed by "
        + ("a key that was named" if public_keys else "the key in it"),
        field="file",
        reason="SIGNATURE_WRONG",
    )


def _key(pem: bytes) -> tuple[Any, str]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise InvalidArgument("a public key is no PEM", field="public-key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidArgument("a public key is not of Ed25519", field="public-key")
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return key, hashlib.sha256(raw).hexdigest()[:16]
