"""Who was let in and who was not; no label ever holds a name or an id."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from service.telemetry.registry import REGISTRY

__all__ = ["API_KEYS_KNOWN", "API_KEY_READS", "AUTHENTICATIONS", "JWKS_REFRESHES"]

AUTHENTICATIONS = Counter(
    "resight_authentications",
    "Credentials looked at, by kind (bootstrap, key, jwt, none) and outcome (accepted, refused, "
    "throttled, unavailable).",
    ("kind", "outcome"),
    registry=REGISTRY,
)
API_KEY_READS = Counter(
    "resight_api_key_reads",
    "Looks at the catalog for changed keys, by outcome (unchanged, changed, failed).",
    ("outcome",),
    registry=REGISTRY,
)
API_KEYS_KNOWN = Gauge(
    "resight_api_keys_known",
    "Keys that this replica knows as neither revoked nor expired.",
    registry=REGISTRY,
)
JWKS_REFRESHES = Counter(
    "resight_jwks_refreshes",
    "Reads of the key set that tokens are checked with, by outcome (read, failed).",
    ("outcome",),
    registry=REGISTRY,
)
# A series that began with its first failure would hide it from `increase`.
for _outcome in ("read", "failed"):
    JWKS_REFRESHES.labels(_outcome)
