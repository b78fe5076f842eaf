"""A model's life over REST."""

from __future__ import annotations

from fastapi import APIRouter

from service.application.lifecycle import Lifecycle
from service.application.registry import Registry
from service.transport.rest.lifecycle_schemas import (
    Promote,
    PromotedAnswer,
    Retire,
    Rollback,
    RolledBackAnswer,
    Stage,
    StagedAnswer,
)
from service.transport.rest.model_schemas import FillingAnswer, ModelAnswer
from service.transport.rest.strict_route import StrictRoute

__all__ = ["router"]


def router(registry: Registry, lifecycle: Lifecycle) -> APIRouter:
    """The routes below a gallery."""
    routes = APIRouter(prefix="/models", tags=["models"], route_class=StrictRoute)

    async def answer(gallery: str, version: str) -> ModelAnswer:
        return ModelAnswer.of((await registry.get(gallery, version))[0])

    @routes.post("/{model_version}/stage")
    async def stage_model(gallery: str, model_version: str, body: Stage) -> StagedAnswer:
        """Make a candidate the shadow and fill it in the background."""
        staged = await lifecycle.stage(
            gallery,
            model_version,
            retire_previous=body.retire_previous,
            reason=body.reason,
        )
        filling = await lifecycle.filling(gallery, model_version)
        return StagedAnswer(
            model=await answer(gallery, model_version),
            filling=None if filling is None else FillingAnswer.of(filling),
            retired_version=staged.retired,
        )

    @routes.post("/{model_version}/promote")
    async def promote_model(gallery: str, model_version: str, body: Promote) -> PromotedAnswer:
        """Make the shadow the model that answers."""
        promoted = await lifecycle.promote(
            gallery,
            model_version,
            allow_missing=body.allow_missing,
            force=body.force,
            reason=body.reason,
        )
        model, _ = await registry.get(gallery, promoted.model_version)
        return PromotedAnswer.of(promoted, model)

    @routes.post("/rollback")
    async def rollback_model(gallery: str, body: Rollback) -> RolledBackAnswer:
        """Make the previous model answer again."""
        done = await lifecycle.rollback(gallery, leaving=body.model_version, reason=body.reason)
        return RolledBackAnswer(
            model=await answer(gallery, done.model_version),
            previous_version=done.previous_version,
        )

    @routes.post("/{model_version}/retire")
    async def retire_model(gallery: str, model_version: str, body: Retire) -> ModelAnswer:
        """Retire a candidate, the shadow or the previous model."""
        await lifecycle.retire(gallery, model_version, reason=body.reason)
        return await answer(gallery, model_version)

    @routes.post("/{model_version}/filling/pause")
    async def pause_filling(gallery: str, model_version: str) -> FillingAnswer:
        """Let the filling of the shadow rest."""
        return FillingAnswer.of(await lifecycle.pause(gallery, model_version))

    @routes.post("/{model_version}/filling/resume")
    async def resume_filling(gallery: str, model_version: str) -> FillingAnswer:
        """Let it go on, and try again the crops that failed."""
        return FillingAnswer.of(await lifecycle.resume(gallery, model_version))

    return routes
