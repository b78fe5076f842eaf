"""Who a caller's certificate names."""

from __future__ import annotations

from functools import lru_cache

from cryptography import x509

__all__ = ["subject_of"]


@lru_cache(maxsize=1024)
def subject_of(certificate: bytes) -> str:
    """Subject as in RFC 4514 of a certificate in PEM or DER; empty when it cannot be read.

    The TLS library has verified it by then, so one that another library cannot parse is let
    through without a name.
    """
    try:
        if certificate.startswith(b"-----"):
            return x509.load_pem_x509_certificate(certificate).subject.rfc4514_string()
        return x509.load_der_x509_certificate(certificate).subject.rfc4514_string()
    except ValueError:
        return ""
