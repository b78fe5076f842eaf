"""Of certificates."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from service.telemetry.registry import REGISTRY

__all__ = ["TLS_EXPIRY", "TLS_RELOADS"]

TLS_EXPIRY = Gauge(
    "resight_tls_certificate_expiry_timestamp_seconds",
    "When the certificate in use expires: server is the listeners' own, client_ca the last of "
    "those that vouch for callers.",
    ["certificate"],
    registry=REGISTRY,
)
TLS_RELOADS = Counter(
    "resight_tls_reloads_total",
    "Changes of the TLS files, by outcome: reloaded, or failed and the old ones kept.",
    ["outcome"],
    registry=REGISTRY,
)
