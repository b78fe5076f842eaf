"""Certificate, key and client CA as the files hold them, checked before a listener uses them."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from resight.errors import FailedPrecondition
from service.access_settings import TlsSettings

__all__ = ["Pair", "read_pair", "server_context"]

_SERVER = ExtendedKeyUsageOID.SERVER_AUTH
_ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE


@dataclass(frozen=True, slots=True)
class Pair:
    """What both listeners show and ask for.

    Attributes:
        certificate: PEM, the certificate itself first, then those between it and its CA.
        key: PEM, not encrypted.
        client_ca: PEM of those who vouch for callers; None: nobody need show a certificate.
        subject: Of the certificate, as in RFC 4514.
        expires: When the certificate does.
        client_ca_expires: When the last certificate of ``client_ca`` does.
    """

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    subject: str
    expires: datetime
    client_ca_expires: datetime | None


def read_pair(settings: TlsSettings, now: datetime) -> Pair | None:
    """The files as they are now; None where TLS is not set up.

    Raises:
        FailedPrecondition: a file cannot be read or used; the message names the setting, the file
            and the fix.
    """
    if settings.certificate_file is None or settings.key_file is None:
        return None
    pem = _read(settings.certificate_file, "certificate_file")
    chain = _certificates(pem, settings.certificate_file, "certificate_file")
    leaf = chain[0]
    _refuse_unusable(leaf, settings.certificate_file, now)
    key = _read(settings.key_file, "key_file")
    _refuse_other_key(chain, _private_key(key, settings.key_file), settings)
    client_ca = expires = None
    if settings.client_ca_file is not None:
        client_ca = _read(settings.client_ca_file, "client_ca_file")
        expires = _client_ca_expires(client_ca, settings.client_ca_file, now)
    pair = Pair(
        certificate=pem,
        key=key,
        client_ca=client_ca,
        subject=leaf.subject.rfc4514_string(),
        expires=leaf.not_valid_after_utc,
        client_ca_expires=expires,
    )
    try:
        server_context(pair)
    except ssl.SSLError as error:
        raise _refused(
            "certificate_file",
            settings.certificate_file,
            f"OpenSSL does not take it ({error.reason or error}); use RSA of 2048 bits or more, or "
            "an elliptic curve, with SHA-256 or better",
        ) from error
    return pair


def server_context(pair: Pair) -> ssl.SSLContext:
    """A context for a server: TLS 1.2 or newer, callers' certificates asked for when there is a CA.

    Raises:
        SSLError: the library takes certificate or key for too weak.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # The library reads files alone, and those of the settings may have changed since the check;
    # one in memory also serves where no disk may be written.
    with os.fdopen(os.memfd_create("tls", os.MFD_CLOEXEC), "wb") as joined:
        joined.write(pair.key.rstrip() + b"\n" + pair.certificate)
        joined.flush()
        context.load_cert_chain(f"/proc/self/fd/{joined.fileno()}")
    if pair.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # As gRPC does: an intermediate CA may be trusted alone.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=pair.client_ca.decode("ascii", "ignore"))
    return context


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refused(
            setting, path, f"cannot be read ({error.strerror}); correct the path or its rights"
        ) from error


def _certificates(pem: bytes, path: Path, setting: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise _refused(
            setting, path, "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        ) from error


def _refuse_unusable(leaf: x509.Certificate, path: Path, now: datetime) -> None:
    if now >= leaf.not_valid_after_utc:
        raise _refused(
            "certificate_file",
            path,
            f"expired on {_day(leaf.not_valid_after_utc)}; put a renewed certificate there",
        )
    if now < leaf.not_valid_before_utc:
        raise _refused(
            "certificate_file",
            path,
            f"is valid from {_day(leaf.not_valid_before_utc)} on, and this machine's clock says "
            f"{_day(now)}; set the clock right, or use a certificate that is valid now",
        )
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    except ValueError as error:
        raise _refused("certificate_file", path, f"cannot be read ({error})") from error
    if _SERVER not in usage and _ANY not in usage:
        raise _refused(
            "certificate_file",
            path,
            "is not for servers, and clients refuse it; have one issued with the extended key "
            "usage serverAuth",
        )


def _private_key(pem: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, None)
    except TypeError as error:
        raise _refused(
            "key_file",
            path,
            "is encrypted, and nobody is there to type its passphrase; decrypt it with `openssl "
            "pkey` and let only this user read it",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refused(
            "key_file", path, "holds no private key in PEM (-----BEGIN PRIVATE KEY-----)"
        ) from error


def _refuse_other_key(
    chain: list[x509.Certificate], key: PrivateKeyTypes, settings: TlsSettings
) -> None:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = key.public_key().public_bytes(*form)
    if chain[0].public_key().public_bytes(*form) == wanted:
        return
    if any(other.public_key().public_bytes(*form) == wanted for other in chain[1:]):
        raise _refused(
            "certificate_file",
            settings.certificate_file,
            f"the first certificate is not that of {settings.key_file}; put the service's own "
            "first and its CA's after it",
        )
    raise _refused(
        "key_file",
        settings.key_file,
        f"is not the key of {settings.certificate_file}; put the key there that this certificate "
        "was issued for",
    )


def _client_ca_expires(pem: bytes, path: Path, now: datetime) -> datetime:
    expires = max(ca.not_valid_after_utc for ca in _certificates(pem, path, "client_ca_file"))
    if now >= expires:
        raise _refused(
            "client_ca_file",
            path,
            f"expired on {_day(expires)}, so no caller could be let in; put the CA's new "
            "certificate there",
        )
    return expires


def _refused(setting: str, path: Path | None, what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"tls.{setting} {path}: {what}", field=f"tls.{setting}", reason="TLS_FILES_UNUSABLE"
    )


def _day(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
