"""Taking an address, with an error that names the setting."""

from __future__ import annotations

import errno
import socket

from resight.errors import FailedPrecondition

__all__ = ["bound_socket", "joined"]


def bound_socket(host: str, port: int, *, listener: str) -> socket.socket:
    """A TCP socket bound to the address, not yet listening.

    Args:
        host: Name or IP address.
        port: 0 takes a free one.
        listener: Its settings' section, for the error.

    Raises:
        FailedPrecondition: The address cannot be bound.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except socket.gaierror as error:
        raise FailedPrecondition(
            f"{listener}.host: {host!r} is no address of this machine ({error.strerror}); set "
            f"RESIGHT_{listener.upper()}__HOST to one, for example 127.0.0.1",
            field=f"{listener}.host",
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise FailedPrecondition(
                f"{listener}.host: {host!r} is no address of this machine; set "
                f"RESIGHT_{listener.upper()}__HOST to one, for example 127.0.0.1",
                field=f"{listener}.host",
            ) from error
        raise FailedPrecondition(
            f"{listener}.port: cannot listen on {joined(host, port)} ({error.strerror}); stop what "
            f"uses it, or choose another with --{listener}-port (0 takes a free one)",
            field=f"{listener}.port",
        ) from error
    return bound


def joined(host: str, port: int) -> str:
    """``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
