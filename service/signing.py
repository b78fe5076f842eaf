"""Signatures of the audit's checkpoints and of erasure receipts: Ed25519 (RFC 8032).

Whoever can write to the database can write a chain of digests anew; without the private key nobody
can sign it. The key is ``audit.signing_key_file``, or is made once in the data directory, of which
every replica has its own. A ``signer`` names a public key: the first 16 hex digits of the SHA-256
of its 32 bytes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from resight.durable import flush_folder
from resight.errors import InvalidArgument

__all__ = ["KEY_NAME", "PublicKeys", "SigningKey", "open_signing_key", "signer_of"]

KEY_NAME = "signing-key.pem"
_SETTING = "audit.signing_key_file"
_MOST_BYTES = 64 * 1024


class SigningKey:
    """A private key.

    Args:
        key: The key.

    Attributes:
        signer: Names its public key.
        public_pem: The public key, PEM (SubjectPublicKeyInfo).
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.signer = signer_of(key.public_key())
        self.public_pem = _pem(key.public_key())

    def sign(self, message: bytes) -> bytes:
        """The signature, 64 bytes."""
        return self._key.sign(message)


class PublicKeys:
    """Public keys that are trusted, by ``signer``."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._keys = dict(keys)

    @classmethod
    def of(cls, pems: Iterable[str]) -> Self:
        """Keys in PEM.

        Raises:
            InvalidArgument: one is no Ed25519 public key.
        """
        keys = [_public(pem.encode(), "a stored public key") for pem in pems]
        return cls({signer_of(key): key for key in keys})

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Self:
        """Keys of files in PEM.

        Raises:
            InvalidArgument: one cannot be read or is no Ed25519 public key.
        """
        keys = [_public(_contents(path, "public-key"), str(path)) for path in paths]
        return cls({signer_of(key): key for key in keys})

    @property
    def signers(self) -> list[str]:
        """Whose keys these are."""
        return sorted(self._keys)

    def __contains__(self, signer: str) -> bool:
        return signer in self._keys

    def pem(self, signer: str) -> str:
        """A key in PEM."""
        return _pem(self._keys[signer])

    def verify(self, message: bytes, signature: bytes, signer: str) -> bool:
        """Whether the signature is that signer's and of these bytes; False for an unknown one."""
        key = self._keys.get(signer)
        if key is None:
            return False
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def open_signing_key(path: Path | None, data_dir: Path) -> SigningKey:
    """The key of a file, or else that of the data directory, made when it is missing.

    Args:
        path: ``audit.signing_key_file``: an Ed25519 private key, PEM, without a passphrase.
        data_dir: Where ``signing-key.pem`` lies when no file is named.

    Raises:
        InvalidArgument: the key cannot be read or made, others may read the one in the data
            directory, or it is of another kind.
    """
    own = data_dir / KEY_NAME
    if path is None and not own.exists():
        _make(own)
    chosen = path or own
    if path is None:
        _refuse_when_shared(own)
    try:
        return SigningKey(_private(_contents(chosen, _SETTING), chosen))
    except InvalidArgument as error:
        raise InvalidArgument(f"{_SETTING}: {error.message}", field=_SETTING) from error


def signer_of(key: Ed25519PublicKey) -> str:
    """What names a public key."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _make(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    # A crash must not leave half a key under the name.
    unfinished = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished.unlink(missing_ok=True)
        handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, pem)
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(unfinished, path)
        flush_folder(path.parent)
    except OSError as error:
        raise InvalidArgument(
            f"the signing key {path} cannot be written ({error}); give this user the right to, or "
            f"name a key with {_SETTING}",
            field=_SETTING,
        ) from error


def _refuse_when_shared(path: Path) -> None:
    """Our own key is its owner's alone; who may read a mounted secret is not for us to say."""
    mode = path.stat().st_mode
    if mode & 0o077:
        raise InvalidArgument(
            f"the signing key {path} can be read by others (mode {mode & 0o777:o}); chmod 600 it, "
            "and make a new one if they may have",
            field=_SETTING,
        )


def _contents(path: Path, field: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise InvalidArgument(
            f"{path} cannot be read ({error.strerror}); correct the path or its rights", field=field
        ) from error


def _private(pem: bytes, path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key


def _no_key(path: Path) -> InvalidArgument:
    return InvalidArgument(
        f"{path} is no Ed25519 private key in PEM without a passphrase; make one with "
        "`openssl genpkey -algorithm ed25519 -out FILE`",
        field=_SETTING,
    )


def _public(pem: bytes, what: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(
            f"{what} is no public key in PEM; take it from `resight audit keys`",
            field="public-key",
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidArgument(f"{what} is no Ed25519 public key", field="public-key")
    return key


def _pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
