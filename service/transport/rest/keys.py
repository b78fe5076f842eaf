"""API keys over REST."""

from __future__ import annotations

from fastapi import APIRouter

from service.application.api_keys import ApiKeys
from service.transport.rest.key_schemas import ApiKey, ApiKeyPage, CreateApiKey, CreatedApiKey
from service.transport.rest.strict_route import StrictRoute

__all__ = ["router"]


def router(keys: ApiKeys) -> APIRouter:
    """The routes below /v1."""
    routes = APIRouter(tags=["keys"], route_class=StrictRoute)

    @routes.post("/keys", status_code=201)
    async def create_api_key(body: CreateApiKey) -> CreatedApiKey:
        """Make a key; the answer is the only time its secret is shown."""
        return CreatedApiKey.of(await keys.create(body.asked()))

    @routes.get("/keys")
    async def list_api_keys(page_size: int = 0, page_token: str = "") -> ApiKeyPage:
        """A page of keys, newest first, without their secrets."""
        page = await keys.list(page_size, page_token)
        return ApiKeyPage(
            api_keys=[ApiKey.of(key) for key in page.items], next_page_token=page.next_page_token
        )

    @routes.post("/keys/{key_id}/revoke")
    async def revoke_api_key(key_id: str) -> ApiKey:
        """Revoke a key; again changes nothing."""
        return ApiKey.of(await keys.revoke(key_id))

    return routes
