"""What a call says besides its message: credentials, certificate and purpose."""

from __future__ import annotations

from typing import Any

from service.access.gate import Credentials
from service.tls.caller import subject_of
from service.transport.purpose import PURPOSE, decoded_purpose

__all__ = ["certificate_of", "credentials_of", "purpose_of"]

Context = Any


def credentials_of(context: Context) -> Credentials:
    """What the caller shows; the first value where there are several."""
    return Credentials(authorization=_first(context, "authorization"))


def certificate_of(context: Context) -> str:
    """Subject of the certificate that the caller showed; empty for none."""
    shown = context.auth_context().get("x509_pem_cert", ())
    return subject_of(shown[0]) if shown else ""


def purpose_of(context: Context) -> str:
    """The declared purpose; empty for none.

    Raises:
        InvalidArgument: it is no text, or too long.
    """
    return decoded_purpose(_first(context, PURPOSE))


def _first(context: Context, name: str) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == name and isinstance(value, str):
            return value
    return ""
