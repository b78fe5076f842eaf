"""Which second model is asked beside the live one, and, where the gate decides, what it brings.

With ``models.promotion = gate``: the newest candidate that the gate passed against the model that
is live now is staged; once every crop has its vector, and a sample of them was verified, it is
promoted; and for ``probation_seconds`` the model before comes back when

    failed / (failed + made) > max_failed_share     over at least min_judged embeddings, or
    mean overlap@10 with the previous < min_overlap over at least min_judged mirrored searches.

The gate passes only what is not behind the frozen baseline, where it was given one (docs/gate.md).
Promotions by hand are never undone here.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from resight.errors import FailedPrecondition
from service.adaptation_settings import ModelSettings
from service.application.counted_embedder import CountedEmbedder
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.lifecycle import Lifecycle
from service.application.mirror import Mirror
from service.catalog import lifecycle_reads, registry
from service.catalog.lifecycle_reads import FedModels, LastEvent
from service.catalog.model_states import Actor
from service.catalog.store import Catalog
from service.domain.filling import Filling, FillingSource, FillingState
from service.domain.model import GateOutcome, Model, ModelState
from service.domain.ports import Clock

__all__ = ["PromotionPolicy"]

logger = logging.getLogger(__name__)

LOOKED_AT = 20
REFUSED_SECONDS = 60.0


class PromotionPolicy:
    """Looks at every gallery again and again."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        lifecycle: Lifecycle,
        mirror: Mirror,
        clock: Clock,
        settings: ModelSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._lifecycle = lifecycle
        self._mirror = mirror
        self._clock = clock
        self._settings = settings
        # Embeddings made and failed when a promotion was first seen, by its time.
        self._since: dict[tuple[int, datetime], tuple[int, int]] = {}
        self._refused: dict[int, datetime] = {}

    async def look(self) -> None:
        """Look at every gallery once.

        Raises:
            Unavailable: the catalog does not answer.
        """
        for gallery in self._galleries.all():
            fed = await self._catalog.read(lifecycle_reads.fed_models, gallery.row)
            event = await self._catalog.read(lifecycle_reads.last_event, gallery.row)
            filling: Filling | None = None
            if fed.shadow is not None:
                filling = await self._catalog.read(
                    lifecycle_reads.filling, gallery.row, fed.shadow.model_version
                )
            self._choose_second(gallery, fed, filling, event)
            if self._settings.promotion == "gate":
                await self._decided(gallery, fed, filling, event)

    def _choose_second(
        self,
        gallery: Gallery,
        fed: FedModels,
        filling: Filling | None,
        event: LastEvent | None,
    ) -> None:
        chosen = None
        if fed.shadow is not None and filling is not None:
            # Without vectors of older crops its answers say nothing.
            if filling.state is FillingState.COMPLETE and filling.source is not FillingSource.NONE:
                chosen = fed.shadow.model_row, "shadow"
        elif fed.previous is not None and event is not None and self._on_probation(event):
            chosen = fed.previous.model_row, "previous"
        self._mirror.choose(gallery, chosen)

    async def _decided(
        self,
        gallery: Gallery,
        fed: FedModels,
        filling: Filling | None,
        event: LastEvent | None,
    ) -> None:
        refused = self._refused.get(gallery.row)
        if refused is not None and self._clock.now() < refused:
            return
        try:
            if fed.shadow is not None:
                await self._promoted(gallery, fed, filling)
            elif event is not None and fed.previous is not None and self._on_probation(event):
                await self._judged(gallery, fed, event)
            else:
                await self._staged(gallery, fed)
        except FailedPrecondition as error:
            # Another process may have been first; what is wrong for good is not tried every time.
            self._refused[gallery.row] = self._clock.now() + timedelta(seconds=REFUSED_SECONDS)
            logger.warning("gallery %s: the policy was refused: %s", gallery.name, error)

    async def _staged(self, gallery: Gallery, fed: FedModels) -> None:
        listed = await self._catalog.read(
            registry.list_models, gallery.row, before=None, limit=LOOKED_AT
        )
        for _, model in listed:
            if model.state is not ModelState.CANDIDATE:
                # Older candidates were passed over by whoever chose this one.
                return
            if model.gate.outcome is GateOutcome.PASSED and await self._against(
                gallery, model, fed.live.model_version
            ):
                await self._lifecycle.stage(
                    gallery.name,
                    model.model_version,
                    retire_previous=True,
                    reason="the gate passed it",
                    actor=Actor.POLICY,
                )
                return

    async def _promoted(self, gallery: Gallery, fed: FedModels, filling: Filling | None) -> None:
        if fed.shadow is None or filling is None or filling.state is not FillingState.COMPLETE:
            return
        version = fed.shadow.model_version
        model = await self._catalog.read(registry.find_model, gallery.row, version)
        if model is None or model.gate.outcome is not GateOutcome.PASSED:
            return
        if not await self._against(gallery, model, fed.live.model_version):
            return
        await self._lifecycle.promote(
            gallery.name, version, reason="the gate passed it", actor=Actor.POLICY
        )

    async def _judged(self, gallery: Gallery, fed: FedModels, event: LastEvent) -> None:
        """Roll back what the policy promoted and has not stood the test."""
        if (event.kind, event.actor) != ("promote", Actor.POLICY.value) or fed.previous is None:
            return
        settings, reason = self._settings, ""
        made, failed = self._counted(gallery, event)
        overlap = self._mirror.overlap(gallery, fed.live.model_version, fed.previous.model_version)
        if made + failed >= settings.min_judged and (
            failed / (made + failed) > settings.max_failed_share
        ):
            reason = f"{failed} of {made + failed} embeddings failed"
        elif overlap.searches >= settings.min_judged and overlap.mean < settings.min_overlap:
            reason = (
                f"overlap@10 with the previous model is {overlap.mean:.3f} over "
                f"{overlap.searches} searches"
            )
        if reason:
            logger.error("gallery %s: rolling back: %s", gallery.name, reason)
            # Another replica's policy may have come to the same.
            await self._lifecycle.rollback(
                gallery.name,
                leaving=fed.live.model_version,
                reason=reason,
                actor=Actor.POLICY,
            )

    def _counted(self, gallery: Gallery, event: LastEvent) -> tuple[int, int]:
        embedder = gallery.serving.encoder.embedder
        if not isinstance(embedder, CountedEmbedder):
            return 0, 0
        now = embedder.made, embedder.failed
        made, failed = self._since.setdefault((gallery.row, event.create_time), now)
        return now[0] - made, now[1] - failed

    async def _against(self, gallery: Gallery, model: Model, live: str) -> bool:
        """Whether the gate compared it with the model that is live now."""
        found = await self._catalog.read(registry.find_model, gallery.row, model.model_version)
        report = {} if found is None else dict(found.gate.report or {})
        return str(report.get("live", model.parent_version)) == live

    def _on_probation(self, event: LastEvent) -> bool:
        length = timedelta(seconds=self._settings.probation_seconds)
        return self._clock.now() < event.create_time + length
