"""Why no channel came about: gRPC says no more than that there is none."""

from __future__ import annotations

import socket
import ssl

from resight.client.tls import CA_FILE, CLIENT_CERT_FILE, CLIENT_TLS, Trust, context_of

__all__ = ["diagnosis"]

_SECONDS = 3.0
# OpenSSL's X509_V_ERR_…
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_HOST, _OTHER_ADDRESS = 62, 64


def diagnosis(target: str, trust: Trust) -> str:
    """One line about what stands in the way of a connection, with what to do.

    Args:
        target: ``host:port``.
        trust: How the connection was tried.
    """
    host, port = _parts(target)
    try:
        with socket.create_connection((host, port), timeout=_SECONDS) as plain:
            return _over_tls(plain, host, target, trust) if trust.wanted else _speaks(plain, target)
    except OSError:
        return (
            f"no service answers at {target}; start one with `resight serve` or name another "
            "with --target"
        )


def _speaks(plain: socket.socket, target: str) -> str:
    unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    unchecked.check_hostname = False
    unchecked.verify_mode = ssl.CERT_NONE
    try:
        with unchecked.wrap_socket(plain):
            pass
    except OSError:
        return (
            f"what listens at {target} does not answer as a service does; name the gRPC listener "
            "of one with --target"
        )
    return (
        f"the service at {target} speaks TLS; name its CA with --ca-file ({CA_FILE}), or say --tls "
        f"({CLIENT_TLS}=true) where the system knows it"
    )


def _over_tls(plain: socket.socket, host: str, target: str, trust: Trust) -> str:
    context = context_of(trust)
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(plain, server_hostname=host) as stream:
            # HTTP/2 servers speak first. In TLS 1.3 a client hears only now that its certificate is
            # not taken, and from gRPC not even that: it hangs up.
            if not stream.recv(1):
                return _certificate_refused("it hangs up", target, trust)
    except ssl.SSLCertVerificationError as error:
        return _not_trusted(error, target, trust)
    except ssl.SSLEOFError:
        return _certificate_refused("it hangs up", target, trust)
    except ssl.SSLError as error:
        return _refused(error.reason or "", target, trust)
    except ConnectionError:
        return _certificate_refused("it hangs up", target, trust)
    except OSError:
        pass
    return (
        f"the service at {target} speaks TLS and opens no connection; look at its log, or name "
        "another with --target"
    )


def _not_trusted(error: ssl.SSLCertVerificationError, target: str, trust: Trust) -> str:
    begun = f"the certificate of the service at {target}"
    if error.verify_code == _EXPIRED:
        return f"{begun} has expired; renew it there (it is read without a restart)"
    if error.verify_code == _NOT_YET_VALID:
        return f"{begun} is not valid yet; set this machine's clock right, or the certificate"
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        return (
            f"{begun} is for another name ({error.verify_message}); use a name that stands in it "
            "as --target"
        )
    which = f"{trust.ca_file}" if trust.ca_file else "the system's CAs"
    return (
        f"{begun} is not trusted by {which} ({error.verify_message}); name the CA that issued it "
        f"with --ca-file ({CA_FILE})"
    )


def _refused(reason: str, target: str, trust: Trust) -> str:
    if "ALERT" in reason and "VERSION" not in reason:
        return _certificate_refused(reason.lower().replace("_", " "), target, trust)
    if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "PACKET_LENGTH" in reason:
        return (
            f"the service at {target} speaks no TLS; leave out --tls, --ca-file and client "
            "certificates (and their RESIGHT_ twins), or name its TLS listener with --target"
        )
    return f"no TLS connection to {target} ({reason.lower().replace('_', ' ')})"


def _certificate_refused(how: str, target: str, trust: Trust) -> str:
    if trust.client_cert_file is None:
        return (
            f"the service at {target} asks for a client certificate ({how}); name yours with "
            f"--client-cert-file ({CLIENT_CERT_FILE}) and --client-key-file"
        )
    return (
        f"the service at {target} does not take the client certificate {trust.client_cert_file} "
        f"({how}); use one that its client CA issued and that is valid"
    )


def _parts(target: str) -> tuple[str, int]:
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else 0
