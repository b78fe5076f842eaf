"""Settings of access, TLS, probes, audit and governance: sections of ``service.settings``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

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
    that was made or revoked is known to every replica after ``refresh_seconds``. Tokens of
    ``jwt_issuer`` for ``jwt_audience`` are checked with the key set of ``jwks_file`` or
    ``jwks_url``, read again every ``jwks_refresh_seconds``; ``jwt_claim`` holds their limits. Keys
    that their bearers make expire within ``token_key_days``; 0 lets them make none. 0 requests a
    minute or a day, or refused attempts of one address, is no bound.
    """

    authentication: Literal["auto", "on", "off"] = "auto"
    refresh_seconds: float = Field(default=2.0, gt=0, le=60)
    bootstrap_key_file: Path | None = None
    jwks_file: Path | None = None
    jwks_url: str | None = None
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_claim: str = Field(default="resight", min_length=1)
    jwks_refresh_seconds: float = Field(default=300.0, gt=0)
    token_key_days: float = Field(default=90.0, ge=0, le=3650)
    requests_per_minute: int = Field(default=0, ge=0)
    requests_per_day: int = Field(default=0, ge=0)
    refused_attempts_per_minute: int = Field(default=60, ge=0)

    @model_validator(mode="after")
    def _tokens_set_up_whole(self) -> Self:
        if self.jwks_file is not None and self.jwks_url is not None:
            raise ValueError("jwks_file and jwks_url are both set; unset one of them")
        keys = self.jwks_file is not None or self.jwks_url is not None
        for name in ("jwt_issuer", "jwt_audience"):
            if keys and not getattr(self, name):
                raise ValueError(f"tokens are accepted, but {name} is not set; set it")
            if getattr(self, name) and not keys:
                raise ValueError(f"{name} is set, but neither jwks_file nor jwks_url; set one")
        return self


class TlsSettings(_Section):
    """TLS of both listeners: files in PEM. With ``client_ca_file`` callers must show a certificate
    of one of its CAs. The files are looked at every ``reload_seconds``, and a pair that changed and
    can be used is the one that new connections get.
    """

    certificate_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    reload_seconds: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        both = ("certificate_file", "key_file")
        for given, missing in (both, both[::-1], ("client_ca_file", "certificate_file")):
            if getattr(self, given) is not None and getattr(self, missing) is None:
                raise ValueError(
                    f"{given} is set and {missing} is not; set RESIGHT_TLS__{missing.upper()}, too,"
                    f" or take RESIGHT_TLS__{given.upper()} away"
                )
        return self


class ProbeSettings(_Section):
    """A listener of its own, without TLS and credentials, for /healthz, /readyz and /metrics: of
    an orchestrator and Prometheus. Port 0 takes a free one; None: they are on the REST listener
    alone, and with authentication /metrics asks for credentials there.
    """

    host: str = "127.0.0.1"
    port: Port | None = None


class AuditSettings(_Section):
    """The audit. A checkpoint is signed every ``checkpoint_entries`` entries or
    ``checkpoint_seconds``, and at the end, and copied to ``anchor_url`` (any fsspec URL). An answer
    waits at most ``wait_seconds`` for its entry, of which at most ``max_waiting`` wait at a time.
    Entries are removed after ``keep_days``; never when that is not set. ``record_matches`` adds the
    ids of the crops that a search found.
    """

    enabled: bool = True
    signing_key_file: Path | None = None
    checkpoint_entries: int = Field(default=1000, ge=1)
    checkpoint_seconds: float = Field(default=300.0, gt=0)
    anchor_url: str | None = None
    wait_seconds: float = Field(default=10.0, gt=0)
    max_waiting: int = Field(default=4096, ge=1)
    keep_days: float | None = Field(default=None, gt=0)
    record_matches: bool = False


class GovernanceSettings(_Section):
    """What is asked of callers. With ``purposes`` only these may be declared. An erasure removes
    ``erasure_batch_crops`` a transaction, between which ingest gets its turn.
    """

    require_purpose: bool = False
    purposes: tuple[str, ...] = ()
    erasure_batch_crops: int = Field(default=200, ge=1, le=5000)


class TracingSettings(_Section):
    """OpenTelemetry over OTLP/HTTP to ``endpoint``; off while that is not set. A call is traced
    when its caller's ``traceparent`` says so, of others ``sample_ratio``.
    """

    endpoint: str | None = None
    sample_ratio: float = Field(default=1.0, ge=0, le=1)

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not the URL of a collector, for example http://127.0.0.1:4318")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "has credentials in it; give them as OTEL_EXPORTER_OTLP_HEADERS instead"
            )
        return value


class LogSettings(_Section):
    """What goes to stderr; ``calls`` writes a line for every call."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    calls: bool = False
