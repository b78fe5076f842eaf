"""Settings of the galleries' backends; sections of ``service.settings``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from service.setting_faults import placeholder_in

__all__ = ["Backend", "GpuSettings", "MilvusSettings"]

# What holds the vectors: segments in this process, these with a copy on a GPU, or Milvus.
Backend = Literal["segmented", "milvus", "gpu"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class MilvusSettings(_Section):
    """Where Milvus is: ``uri`` of a server (``http://host:19530``) or the path of an embedded
    milvus-lite file, which is for trials. Collections are named ``prefix`` and on; two services
    never share a prefix, because one alone may write to a collection.
    """

    uri: str = ""
    token: SecretStr | None = None
    database: str = ""
    prefix: str = Field(default="resight", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    timeout_seconds: float = Field(default=30.0, gt=0)

    @field_validator("token")
    @classmethod
    def _real_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and placeholder_in(value.get_secret_value()):
            raise ValueError("holds a placeholder; write the real token")
        return value


class GpuSettings(_Section):
    """Which GPU holds sealed segments, and the memory on it that is the library's own. Slabs with
    at most ``cpu_rows`` rows to compare are left to the CPU.
    """

    device: int = Field(default=0, ge=0)
    scratch_bytes: int = Field(default=1 << 30, ge=1 << 24)
    cpu_rows: int = Field(default=2048, ge=0)
