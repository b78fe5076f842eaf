"""grpc.health.v1, driven by the runtime: one entry a service and the empty name for all."""

from __future__ import annotations

from collections.abc import Sequence

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio  # type: ignore[attr-defined]  # missing in its stub

__all__ = ["Health"]

_Status = health_pb2.HealthCheckResponse


class Health:
    """Begins NOT_SERVING; ``servicer`` answers Check and Watch."""

    def __init__(self, services: Sequence[str]) -> None:
        self.servicer = aio.HealthServicer()
        self._names = ("", *services)

    async def set(self, *, serving: bool) -> None:
        """Flip every name at once."""
        status = _Status.SERVING if serving else _Status.NOT_SERVING
        for name in self._names:
            await self.servicer.set(name, status)
