"""Keys: part of resight.v1.AdminService."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import grpc

from resight.errors import InvalidArgument
from resight.v1 import admin_service_pb2 as messages
from resight.v1 import admin_service_pb2_grpc
from service.domain.api_key import ApiKey, KeyRequest
from service.domain.principal import SCOPES
from service.transport.grpc.convert_time import instant, timestamp
from service.transport.use_cases import UseCases

__all__ = ["KeyCalls"]

Context = grpc.aio.ServicerContext[Any, Any]

_NUMBERS = {scope: messages.Scope.Value(f"SCOPE_{scope.upper()}") for scope in SCOPES}
_SCOPES: dict[int, str] = {number: scope for scope, number in _NUMBERS.items()}


class KeyCalls(admin_service_pb2_grpc.AdminServiceServicer):
    """Keys."""

    _use_cases: UseCases

    async def CreateApiKey(  # noqa: N802 -- the methods' names in the proto
        self, request: messages.CreateApiKeyRequest, _context: Context
    ) -> messages.CreateApiKeyResponse:
        """Makes a key."""
        made = await self._use_cases.api_keys.create(_asked(request.api_key))
        return messages.CreateApiKeyResponse(api_key=_message(made.key), secret=made.text)

    async def ListApiKeys(  # noqa: N802
        self, request: messages.ListApiKeysRequest, _context: Context
    ) -> messages.ListApiKeysResponse:
        """A page of keys."""
        page = await self._use_cases.api_keys.list(request.page_size, request.page_token)
        return messages.ListApiKeysResponse(
            api_keys=[_message(key) for key in page.items], next_page_token=page.next_page_token
        )

    async def RevokeApiKey(  # noqa: N802
        self, request: messages.RevokeApiKeyRequest, _context: Context
    ) -> messages.RevokeApiKeyResponse:
        """Revokes a key."""
        return messages.RevokeApiKeyResponse(
            api_key=_message(await self._use_cases.api_keys.revoke(request.key_id))
        )


def _asked(message: messages.ApiKey) -> KeyRequest:
    def time(name: Literal["start_time", "end_time", "expire_time"]) -> datetime | None:
        if not message.HasField(name):
            return None
        return instant(getattr(message, name), field=f"api_key.{name}")

    return KeyRequest(
        display_name=message.display_name,
        scopes=[_scope(number) for number in message.scopes],
        galleries=list(message.galleries),
        camera_ids=list(message.camera_ids),
        start_time=time("start_time"),
        end_time=time("end_time"),
        requests_per_minute=message.requests_per_minute,
        requests_per_day=message.requests_per_day,
        expire_time=time("expire_time"),
    )


def _scope(number: int) -> str:
    if number not in _SCOPES:
        raise InvalidArgument(
            f"api_key.scopes: {number} is no scope; there are {', '.join(SCOPES)}",
            field="api_key.scopes",
        )
    return _SCOPES[number]


def _message(key: ApiKey) -> messages.ApiKey:
    return messages.ApiKey(
        key_id=key.key_id,
        display_name=key.display_name,
        scopes=[_NUMBERS[scope] for scope in key.scopes],
        galleries=key.galleries,
        camera_ids=key.camera_ids,
        start_time=timestamp(key.capture_range.start_time),
        end_time=timestamp(key.capture_range.end_time),
        requests_per_minute=key.requests_per_minute,
        requests_per_day=key.requests_per_day,
        create_time=timestamp(key.create_time),
        expire_time=timestamp(key.expire_time),
        revoke_time=timestamp(key.revoke_time),
        creator=key.creator,
    )
