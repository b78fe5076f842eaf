"""TLS files that change while the service runs: new connections get the new ones, streams that are
open keep theirs, and files that cannot be used change nothing.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc

from resight.errors import ResightError
from service.access_settings import TlsSettings
from service.domain.ports import Clock
from service.telemetry import TLS_EXPIRY, TLS_RELOADS
from service.tls.pair import Pair, read_pair, server_context

__all__ = ["Rotation"]

logger = logging.getLogger(__name__)

WARN_BEFORE = timedelta(days=14)
_SAY_AGAIN = timedelta(days=1)


class Rotation:
    """The pair in use, for both listeners.

    Args:
        settings: Where the files are.
        pair: What they hold now.
        clock: Says what has expired.
    """

    def __init__(self, settings: TlsSettings, pair: Pair, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._pair = pair
        self._fault = ""
        self._told = ""
        self._warned: datetime | None = None
        self.rest_context = _NewestContext(server_context(pair))
        self._new_for_grpc = False
        self._tell()

    @classmethod
    def open(cls, settings: TlsSettings, clock: Clock) -> Rotation | None:
        """What the settings name; None where TLS is not set up.

        Raises:
            FailedPrecondition: a file cannot be used.
        """
        pair = read_pair(settings, clock.now())
        return None if pair is None else cls(settings, pair, clock)

    @property
    def pair(self) -> Pair:
        """What new connections are shown."""
        return self._pair

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Credentials that ask for the newest pair at every new connection; for one listener."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._pair),
            self._newer_for_grpc,  # type: ignore[arg-type]  # None: no newer
            require_client_authentication=self._settings.client_ca_file is not None,
        )

    async def watch(self) -> None:
        """Read the files again at intervals, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.reload_seconds)
            try:
                await asyncio.to_thread(self.refresh)
            except Exception:
                # Whatever it is, the pair in use still serves.
                logger.exception("TLS: the files could not be read again")

    def refresh(self) -> bool:
        """Read the files again; returns whether a new pair is used from now on.

        A pair that cannot be used is told and counted once, and only when it is the same at two
        looks: certificate and key are seldom replaced at one moment.
        """
        try:
            pair = read_pair(self._settings, self._clock.now())
        except ResightError as error:
            lasting = error.message == self._fault != self._told
            self._fault = error.message
            if lasting:
                self._told = error.message
                TLS_RELOADS.labels("failed").inc()
                logger.error("TLS: the old certificate stays in use: %s", error.message)
            self._warn_of_expiry()
            return False
        self._fault = self._told = ""
        if pair is None or pair == self._pair:
            self._warn_of_expiry()
            return False
        self.rest_context.newest = server_context(pair)
        self._pair, self._new_for_grpc = pair, True
        TLS_RELOADS.labels("reloaded").inc()
        logger.info("TLS: certificate of %s read, valid until %s", pair.subject, pair.expires)
        self._warned = None
        self._tell()
        return True

    def _newer_for_grpc(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, on a thread of its own, for every new connection; None: no newer."""
        if not self._new_for_grpc:
            return None
        self._new_for_grpc = False
        return _configuration(self._pair)

    def _tell(self) -> None:
        TLS_EXPIRY.labels("server").set(self._pair.expires.timestamp())
        if self._pair.client_ca_expires is not None:
            TLS_EXPIRY.labels("client_ca").set(self._pair.client_ca_expires.timestamp())
        self._warn_of_expiry()

    def _warn_of_expiry(self) -> None:
        now = self._clock.now()
        if self._warned is not None and now - self._warned < _SAY_AGAIN:
            return
        for name, expires in (
            ("certificate_file", self._pair.expires),
            ("client_ca_file", self._pair.client_ca_expires),
        ):
            if expires is not None and expires - now <= WARN_BEFORE:
                self._warned = now
                logger.warning(
                    "tls.%s %s: expires on %s; put a renewed one there, it is read without a "
                    "restart",
                    name,
                    getattr(self._settings, name),
                    expires.astimezone(UTC).isoformat(),
                )


class _NewestContext(ssl.SSLContext):
    """Hands every new connection to the newest context.

    Loading other files into one context would add CAs and never remove any, could leave
    certificate and key of two pairs, and would let a session of before be resumed.
    """

    newest: ssl.SSLContext

    def __new__(cls, newest: ssl.SSLContext) -> _NewestContext:  # noqa: ARG004
        """The class beneath takes a protocol alone."""
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, newest: ssl.SSLContext) -> None:
        self.newest = newest

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """As the newest context does."""
        return self.newest.wrap_bio(*arguments, **options)


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(pair.key, pair.certificate)], root_certificates=pair.client_ca
    )
