"""``python -m service.healthcheck``: is the service on this machine alive, or ready?

For container health checks, so it imports the standard library alone and is done within a tenth of
a second. It asks the probes listener when ``RESIGHT_PROBES__PORT`` or ``RESIGHT_SERVE_PROBES_PORT``
is set, else the REST listener; ``--url`` names another address, for one that took a free port. Of
a certificate nothing is checked, because it need not name the loopback address. A REST listener
that asks for client certificates refuses this, so set ``probes.port`` with those.

Exit codes: 0 alive (or ready), 1 not; the reason is one line on stderr.
"""

from __future__ import annotations

import argparse
import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

__all__ = ["address", "ask", "main"]

REST_PORT = "7080"
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where all addresses listen, loopback does


def address(environment: Mapping[str, str]) -> str:
    """URL of the listener that a service with this environment has on this machine."""
    probes = _first(environment, "RESIGHT_SERVE_PROBES_PORT", "RESIGHT_PROBES__PORT")
    if probes:
        host = _first(environment, "RESIGHT_PROBES__HOST")
        return f"http://{_joined(host, probes)}"
    port = _first(environment, "RESIGHT_SERVE_REST_PORT", "RESIGHT_REST__PORT") or REST_PORT
    host = _first(environment, "RESIGHT_SERVE_HOST", "RESIGHT_REST__HOST")
    scheme = "https" if _first(environment, "RESIGHT_TLS__CERTIFICATE_FILE") else "http"
    return f"{scheme}://{_joined(host, port)}"


def ask(url: str, path: str, *, timeout: float) -> str:
    """Empty when ``GET url/path`` is answered 200, else what came instead."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # Loopback: the certificate names the address that others use.
        unchecked = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=unchecked)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(200).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{url}{path}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if answer.status == 200 else f"{url}{path}: {answer.status} {body}"


def main(arguments: list[str] | None = None) -> int:
    """Ask once; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m service.healthcheck", description=__doc__)
    parser.add_argument("--ready", action="store_true", help="ask /readyz instead of /healthz")
    parser.add_argument("--url", help="http://host:port of the listener with the probes")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds")
    given = parser.parse_args(arguments)
    url = given.url or address(os.environ)
    fault = ask(url.rstrip("/"), "/readyz" if given.ready else "/healthz", timeout=given.timeout)
    if fault:
        sys.stderr.write(f"error: {fault}\n")
    return 1 if fault else 0


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")


def _joined(host: str, port: str) -> str:
    host = _ANY.get(host, host) or "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    raise SystemExit(main())
