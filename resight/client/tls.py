"""How a client knows a service by its certificate, and shows its own."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, replace
from pathlib import Path

import grpc

from resight.errors import InvalidArgument

__all__ = [
    "CA_FILE",
    "CLIENT_CERT_FILE",
    "CLIENT_KEY_FILE",
    "CLIENT_TLS",
    "PLAINTEXT",
    "Trust",
    "chosen_trust",
    "credentials_of",
]

CA_FILE = "RESIGHT_CA_FILE"
CLIENT_CERT_FILE = "RESIGHT_CLIENT_CERT_FILE"
CLIENT_KEY_FILE = "RESIGHT_CLIENT_KEY_FILE"
# RESIGHT_TLS would be the service's own section of that name.
CLIENT_TLS = "RESIGHT_CLIENT_TLS"

_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@dataclass(frozen=True)
class Trust:
    """Whom to trust, and what to show.

    Attributes:
        tls: Whether to speak TLS; any file below says so, too.
        ca_file: PEM of the CAs to trust; None: the system's.
        client_cert_file: PEM of the certificate to show, where the service asks for one.
        client_key_file: PEM of its key.
    """

    tls: bool = False
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None

    @property
    def wanted(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls or any((self.ca_file, self.client_cert_file, self.client_key_file))


PLAINTEXT = Trust()


def chosen_trust(
    *,
    tls: bool | None = None,
    ca_file: Path | None = None,
    client_cert_file: Path | None = None,
    client_key_file: Path | None = None,
) -> Trust:
    """The arguments, else the environment.

    Raises:
        InvalidArgument: a certificate without its key, or a value that is neither true nor false.
    """
    trust = Trust(
        tls=_flag() if tls is None else tls,
        ca_file=ca_file or _named(CA_FILE),
        client_cert_file=client_cert_file or _named(CLIENT_CERT_FILE),
        client_key_file=client_key_file or _named(CLIENT_KEY_FILE),
    )
    if (trust.client_cert_file is None) != (trust.client_key_file is None):
        given, missing = "--client-cert-file", f"--client-key-file ({CLIENT_KEY_FILE})"
        if trust.client_cert_file is None:
            given, missing = "--client-key-file", f"--client-cert-file ({CLIENT_CERT_FILE})"
        raise InvalidArgument(f"{given} comes without {missing}; name both", field=given)
    return replace(trust, tls=trust.wanted)


def credentials_of(trust: Trust) -> grpc.ChannelCredentials | None:
    """For a channel; None: plaintext.

    Raises:
        InvalidArgument: a file cannot be read, or holds something else; the message names it.
    """
    if not trust.wanted:
        return None
    context_of(trust)
    roots = _read(trust.ca_file, "--ca-file") if trust.ca_file else _system_roots()
    key = certificate = None
    if trust.client_key_file and trust.client_cert_file:
        key = _read(trust.client_key_file, "--client-key-file")
        certificate = _read(trust.client_cert_file, "--client-cert-file")
    return grpc.ssl_channel_credentials(roots, key, certificate)


def context_of(trust: Trust) -> ssl.SSLContext:
    """The same for other protocols; it checks the files, about which gRPC would only log.

    Raises:
        InvalidArgument: a file cannot be used.
    """
    if trust.ca_file:
        _read(trust.ca_file, "--ca-file")
    try:
        context = ssl.create_default_context(cafile=trust.ca_file)
    except ssl.SSLError as error:
        raise InvalidArgument(
            f"--ca-file {trust.ca_file}: holds no certificate in PEM; name that of the CA that "
            f"issued the service's ({CA_FILE})",
            field="--ca-file",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if trust.client_cert_file and trust.client_key_file:
        _read(trust.client_cert_file, "--client-cert-file")
        _read(trust.client_key_file, "--client-key-file")
        try:
            # Without the callback an encrypted key would be asked for on the terminal.
            context.load_cert_chain(trust.client_cert_file, trust.client_key_file, lambda: b"")
        except ssl.SSLError as error:
            raise InvalidArgument(
                f"--client-cert-file {trust.client_cert_file} and --client-key-file "
                f"{trust.client_key_file} are no pair ({error.reason or 'no PEM'}); name a "
                "certificate and its own key, not encrypted",
                field="--client-cert-file",
            ) from error
    return context


def _flag() -> bool:
    value = os.environ.get(CLIENT_TLS, "").lower()
    if value not in (*_TRUE, *_FALSE):
        raise InvalidArgument(f"{CLIENT_TLS} is {value!r}; say true or false", field=CLIENT_TLS)
    return value in _TRUE


def _named(name: str) -> Path | None:
    value = os.environ.get(name, "")
    return Path(value) if value else None


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"{option} {path}: cannot be read ({error.strerror}); correct the path or its rights",
            field=option,
        ) from error


def _system_roots() -> bytes | None:
    """PEM of the CAs that this system trusts; None: those that gRPC brings."""
    found = ssl.create_default_context().get_ca_certs(binary_form=True)
    if not found:
        return None
    return "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in found).encode()
