"""The JSON of API keys."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel, Field

from service.application.api_keys import MadeKey
from service.domain import api_key as domain
from service.transport.rest.filter_schemas import MAX_LIST, Strict

__all__ = ["ApiKey", "ApiKeyPage", "CreateApiKey", "CreatedApiKey"]


class CreateApiKey(Strict):
    """The key to make."""

    display_name: str
    scopes: list[str] = Field(max_length=MAX_LIST)
    galleries: list[str] = Field(default=[], max_length=MAX_LIST)
    camera_ids: list[str] = Field(default=[], max_length=MAX_LIST)
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None
    requests_per_minute: int = 0
    requests_per_day: int = 0
    expire_time: AwareDatetime | None = None

    def asked(self) -> domain.KeyRequest:
        """The domain's value."""
        return domain.KeyRequest(**dict(self))


class ApiKey(BaseModel):
    """A key without its secret."""

    key_id: str
    display_name: str
    scopes: list[str]
    galleries: list[str]
    camera_ids: list[str]
    start_time: datetime | None
    end_time: datetime | None
    requests_per_minute: int
    requests_per_day: int
    create_time: datetime
    expire_time: datetime | None
    revoke_time: datetime | None
    creator: str

    @classmethod
    def of(cls, key: domain.ApiKey) -> Self:
        """From the domain's value."""
        return cls(
            key_id=key.key_id,
            display_name=key.display_name,
            scopes=list(key.scopes),
            galleries=list(key.galleries),
            camera_ids=list(key.camera_ids),
            start_time=key.capture_range.start_time,
            end_time=key.capture_range.end_time,
            requests_per_minute=key.requests_per_minute,
            requests_per_day=key.requests_per_day,
            create_time=key.create_time,
            expire_time=key.expire_time,
            revoke_time=key.revoke_time,
            creator=key.creator,
        )


class CreatedApiKey(BaseModel):
    """The key made."""

    api_key: ApiKey
    secret: str = Field(description="The whole key; shown this once.")

    @classmethod
    def of(cls, made: MadeKey) -> Self:
        """From the use case's answer."""
        return cls(api_key=ApiKey.of(made.key), secret=made.text)


class ApiKeyPage(BaseModel):
    """A page of keys, newest first."""

    api_keys: list[ApiKey]
    next_page_token: str
