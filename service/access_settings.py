"""Settings of access, TLS, probes, audit and governance: sections of ``service.settings``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "AccessSettings",
    "AuditSettings",
    "GovernanceSettings",
    "LogSettings",
    "ProbeSettings",
    "TlsSettings",
    "TracingSettings",
]

Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AccessSettings(_Section):
    """Who is let in. ``auto`` asks for credentials unless both listeners are on loopback. A key
    that was made or revoked is known to every replica after ``refresh_seconds``. 0 requests a
    minute or a day is no bound.
    """

    authentication: Literal["auto", "on", "off"] = "auto"
    refresh_seconds: float = Field(default=2.0, gt=0, le=60)
    bootstrap_key_file: Path | None = None
    jwks_file: Path | None = None
    jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    requests_per_minute: int = Field(default=0, ge=0)
    requests_per_day: int = Field(default=0, ge=0)


class TlsSettings(_Section):
    """TLS of both listeners. With ``client_ca_file`` callers must show a certificate of it. The
    files are read again when they change, every ``reload_seconds``.
    """

    certificate_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    reload_seconds: float = Field(default=10.0, gt=0)


class ProbeSettings(_Section):
    """A listener of its own, without TLS and credentials, for /healthz, /readyz and /metrics: of
    an orchestrator and Prometheus. None: they are on the REST listener, and with authentication
    /metrics asks for credentials there.
    """

    host: str = "127.0.0.1"
    port: Port | None = None


class AuditSettings(_Section):
    """The audit. A checkpoint is signed every ``checkpoint_entries`` entries or
    ``checkpoint_seconds``, and at the end, and copied to ``anchor_url`` (any fsspec URL).
    """

    enabled: bool = True
    signing_key_file: Path | None = None
    checkpoint_entries: int = Field(default=1000, ge=1)
    checkpoint_seconds: float = Field(default=300.0, gt=0)
    anchor_url: str | None = None


class GovernanceSettings(_Section):
    """What is asked of callers. With ``purposes`` only these may be declared."""

    require_purpose: bool = False
    purposes: tuple[str, ...] = ()


class TracingSettings(_Section):
    """OpenTelemetry over OTLP/HTTP to ``endpoint``; off while that is not set."""

    endpoint: str | None = None
    sample_ratio: float = Field(default=1.0, ge=0, le=1)


class LogSettings(_Section):
    """What goes to stderr; ``calls`` writes a line for every call."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    calls: bool = False
