"""Settings of the service: one frozen tree, read once at start.

Every value has an environment twin: prefix ``RESIGHT_``, ``__`` between section and key
(``RESIGHT_GRPC__PORT``). Appending ``_FILE`` reads the value from a file, for secrets
(``RESIGHT_DATABASE_URL_FILE=/run/secrets/database-url``). Nothing is read at import time.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from resight.errors import ResightError
from service.access_settings import (
    AccessSettings,
    AuditSettings,
    GovernanceSettings,
    LogSettings,
    ProbeSettings,
    TlsSettings,
    TracingSettings,
)
from service.adaptation_settings import (
    ModelSettings,
    NightlySettings,
    PrivacySettings,
    RetentionSettings,
)
from service.backend_settings import GpuSettings, MilvusSettings
from service.environment import (
    DELIMITER,
    PREFIX,
    FileTwinSource,
    name_faults,
    refuse_unknown_names,
)
from service.metric_settings import MetricSettings
from service.replication_settings import ReplicaSettings
from service.serving_settings import (
    BatcherSettings,
    BlobSettings,
    CatalogSettings,
    EncoderSettings,
    GrpcSettings,
    IndexSettings,
    LimitSettings,
    RestSettings,
    SearchSettings,
    TravelTimeSettings,
)
from service.setting_faults import faults_of, placeholder_in, unreadable

__all__ = [
    "BatcherSettings",
    "BlobSettings",
    "CatalogSettings",
    "EncoderSettings",
    "GrpcSettings",
    "IndexSettings",
    "LimitSettings",
    "RestSettings",
    "SearchSettings",
    "ServiceSettings",
    "TravelTimeSettings",
    "load_settings",
    "try_settings",
]


class ServiceSettings(BaseSettings):
    """Everything `resight serve` can be told.

    ``database_url``, ``blob_url`` and ``erasures_dir`` default to a SQLite file and folders under
    ``data_dir``.
    After SIGTERM calls are answered for ``drain_delay_seconds`` more, while health already says no;
    then those in flight have ``drain_seconds``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    data_dir: Path = Path("resight-data")
    bundle: Path | None = None
    database_url: SecretStr | None = None
    blob_url: str | None = None
    erasures_dir: Path | None = None
    drain_delay_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    drain_seconds: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    reflection: bool = True
    allow_insecure_network: bool = False
    grpc: GrpcSettings = GrpcSettings()
    rest: RestSettings = RestSettings()
    limits: LimitSettings = LimitSettings()
    batcher: BatcherSettings = BatcherSettings()
    encoder: EncoderSettings = EncoderSettings()
    search: SearchSettings = SearchSettings()
    travel_times: TravelTimeSettings = TravelTimeSettings()
    index: IndexSettings = IndexSettings()
    milvus: MilvusSettings = MilvusSettings()
    gpu: GpuSettings = GpuSettings()
    catalog: CatalogSettings = CatalogSettings()
    blobs: BlobSettings = BlobSettings()
    nightly: NightlySettings = NightlySettings()
    models: ModelSettings = ModelSettings()
    privacy: PrivacySettings = PrivacySettings()
    retention: RetentionSettings = RetentionSettings()
    replicas: ReplicaSettings = ReplicaSettings()
    access: AccessSettings = AccessSettings()
    tls: TlsSettings = TlsSettings()
    probes: ProbeSettings = ProbeSettings()
    audit: AuditSettings = AuditSettings()
    governance: GovernanceSettings = GovernanceSettings()
    tracing: TracingSettings = TracingSettings()
    logs: LogSettings = LogSettings()
    metrics: MetricSettings = MetricSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before environment before ``_FILE`` twins; no dotenv, no secrets folder."""
        return init_settings, env_settings, FileTwinSource(settings_cls)

    @field_validator("database_url")
    @classmethod
    def _real_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        if not value.get_secret_value().strip():
            raise ValueError("is empty; give a URL, or unset it for SQLite in data_dir")
        if placeholder_in(_password(value.get_secret_value())):
            raise ValueError("holds a placeholder in place of the password; write the real one")
        return value

    @model_validator(mode="after")
    def _loopback_unless_secured(self) -> Self:
        for name, host in (("grpc.host", self.grpc.host), ("rest.host", self.rest.host)):
            if self.allow_insecure_network or _is_loopback(host):
                continue
            if self.tls.certificate_file is None:
                lacks = "TLS is not set up. Set RESIGHT_TLS__CERTIFICATE_FILE and _KEY_FILE"
            elif self.access.authentication == "off":
                lacks = "access.authentication=off. Set RESIGHT_ACCESS__AUTHENTICATION=on"
            else:
                continue
            raise ValueError(
                f"{name}={host!r} is reachable from other machines, and {lacks}, or bind 127.0.0.1,"
                " or set RESIGHT_ALLOW_INSECURE_NETWORK=true (allow_insecure_network) where a proxy"
                " or mesh in front does that"
            )
        return self

    @model_validator(mode="after")
    def _a_port_each(self) -> Self:
        taken: list[tuple[str, str, int]] = []
        for name, host, port in self.listeners():
            for other, other_host, other_port in taken:
                everywhere = {host, other_host} & {"", "0.0.0.0", "::"}  # noqa: S104
                if port == other_port != 0 and (host == other_host or everywhere):
                    raise ValueError(
                        f"{name}.port and {other}.port are both {port}; each listener needs a port "
                        f"of its own, so change RESIGHT_{name.upper()}__PORT"
                    )
            taken.append((name, host, port))
        return self

    def listeners(self) -> list[tuple[str, str, int]]:
        """Section, host and port of every listener that these settings ask for."""
        both = [("grpc", self.grpc.host, self.grpc.port), ("rest", self.rest.host, self.rest.port)]
        if self.probes.port is not None:
            both.append(("probes", self.probes.host, self.probes.port))
        return both

    @property
    def authentication_required(self) -> bool:
        """Whether callers must show credentials."""
        if self.access.authentication == "auto":
            return not (_is_loopback(self.grpc.host) and _is_loopback(self.rest.host))
        return self.access.authentication == "on"

    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL of the catalog."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.absolute() / 'catalog.sqlite'}"

    def resolved_blob_url(self) -> str:
        """The fsspec URL of the blob store."""
        return self.blob_url or f"file://{self.data_dir.absolute() / 'blobs'}"

    def resolved_erasures_dir(self) -> Path:
        """The folder of the erasure ledger."""
        return self.erasures_dir or self.data_dir / "erasures"


def load_settings(overrides: Mapping[str, Any] | None = None) -> ServiceSettings:
    """Read the settings from ``overrides`` (nested mappings allowed), then the environment.

    Raises:
        InvalidArgument: a value is wrong, a key is unknown or a ``_FILE`` cannot be read; the
            message names the setting, its environment name and what is wrong.
    """
    refuse_unknown_names(ServiceSettings)
    try:
        return ServiceSettings(**dict(overrides or {}))
    except ValidationError as error:
        raise faults_of(error)[0] from error
    except SettingsError as error:
        raise unreadable(error) from error


def try_settings(
    overrides: Mapping[str, Any] | None = None,
) -> tuple[ServiceSettings | None, list[ResightError]]:
    """As ``load_settings``, with every fault at once; no settings when there is one."""
    faults: list[ResightError] = list(name_faults(ServiceSettings))
    try:
        settings = ServiceSettings(**dict(overrides or {}))
    except ValidationError as error:
        named = {str(fault.field).upper() for fault in faults}
        # A name that was found to be none is not told again as a key that is none.
        return None, faults + [
            fault
            for fault in faults_of(error)
            if f"{PREFIX}{str(fault.field).replace('.', DELIMITER)}".upper() not in named
        ]
    except SettingsError as error:
        return None, [*faults, unreadable(error)]
    except ResightError as error:
        return None, [*faults, error]
    return (None if faults else settings), faults


def _password(url: str) -> str:
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:  # said with the fix where it is opened
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
