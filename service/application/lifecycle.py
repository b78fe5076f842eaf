"""Models moved through their lives: staged, promoted, rolled back, retired.

candidate -> shadow -> live -> previous -> retired. The shadow and the previous model get a vector
of every crop, as the live one does, so promotion and rollback only change which one answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from resight.errors import InvalidArgument, ResightError
from service import call
from service.application.archives import Archives
from service.application.encoders import Encoders
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.index_keeper import IndexKeeper
from service.application.lineup import Lineup
from service.application.model_changes import Promoted, RolledBack, Staged
from service.application.model_check import ModelCheck
from service.application.reembedding import Reembedding
from service.application.served_bundle import ServedBundle
from service.application.stored_models import (
    changed_meanwhile,
    complete_source,
    source_without_images,
    stored_model,
    warm,
)
from service.application.unbroken import Unbroken
from service.catalog import fillings, lifecycle, lifecycle_reads
from service.catalog.model_states import Actor, Note
from service.catalog.store import Catalog
from service.domain import model as domain
from service.domain.credential_text import without_credentials
from service.domain.filling import Filling, FillingSource
from service.domain.model import ModelState
from service.domain.ports import Clock
from service.telemetry import MODEL_CHANGES

__all__ = ["Lifecycle"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_REASON = 500


class Lifecycle:
    """Moves models between their states.

    Args:
        images_stored: Whether crops can be embedded anew.
        wake: Told that there may be something to fill or to remove.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        archives: Archives,
        encoders: Encoders,
        lineup: Lineup,
        index_files: IndexKeeper,
        served_bundle: ServedBundle,
        reembedding: Reembedding,
        check: ModelCheck,
        unbroken: Unbroken,
        clock: Clock,
        images_stored: bool,
        wake: Callable[[], None],
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._archives = archives
        self._encoders = encoders
        self._lineup = lineup
        self._index_files = index_files
        self._served_bundle = served_bundle
        self._reembedding = reembedding
        self._check = check
        self._unbroken = unbroken
        self._clock = clock
        self._images_stored = images_stored
        self._wake = wake
        # Of changes that no caller made.
        self.told: Callable[[str, str], None] = lambda _, __: None

    async def stage(
        self,
        gallery: str,
        version: str,
        *,
        retire_previous: bool = False,
        reason: str = "",
        actor: Actor = Actor.CALLER,
    ) -> Staged:
        """Make a candidate the shadow and begin to fill it.

        Its encoder is loaded first: one that does not run here is not staged.

        Raises:
            InvalidArgument, NotFound: bad or unknown version, or reason.
            FailedPrecondition: as ``catalog.lifecycle.stage``; without images, a bundle that does
                not map the live model's vectors (``NO_VECTOR_MAP``).
        """
        live, note = self._galleries.get(gallery), self._note(actor, reason)
        record = await stored_model(self._catalog, live, version, ModelState.CANDIDATE)
        source = FillingSource.IMAGES if self._images_stored else FillingSource.MAP
        digest = await self._catalog.read(lifecycle_reads.archive_digest, record.model_row)
        if digest is not None:
            await self._archives.fetch(live.name, digest)
            await self._archives.share(live.name, digest)
            encoder = await self._encoders.obtain(record)
            if source is FillingSource.MAP:
                source = await source_without_images(self._reembedding, live, record, encoder)
            await self._served_bundle.keep(live.record)

        def apply(connection: Connection) -> str:
            return lifecycle.stage(
                connection,
                live.row,
                record.model_version,
                source=source,
                retire_previous=retire_previous,
                note=note,
            )

        retired = await self._changed(live, apply, "stage", note)
        return Staged(record.model_version, retired, source)

    async def promote(
        self,
        gallery: str,
        version: str,
        *,
        allow_missing: bool = False,
        force: bool = False,
        reason: str = "",
        actor: Actor = Actor.CALLER,
    ) -> Promoted:
        """Make the shadow the model that answers, once a sample of its vectors was verified.

        Args:
            gallery: Which gallery.
            version: The shadow.
            allow_missing: Whether crops without a vector of it may become unsearchable.
            force: Whether it may lack the gate's verdict; needs a reason. Nothing lets a model
                pass whose vectors are not its own.
            reason: Kept in the catalog.
            actor: Who.

        Raises:
            InvalidArgument, NotFound: bad or unknown version; force without a reason.
            FailedPrecondition: as ``catalog.lifecycle.promote`` and ``ModelCheck.check``.
        """
        live, note = self._galleries.get(gallery), self._note(actor, reason)
        if force and not reason:
            raise InvalidArgument("reason is empty; say why it is forced", field="reason")
        call.current().note(force=force, allow_missing=allow_missing)
        record = await stored_model(self._catalog, live, version, ModelState.SHADOW)
        source = await complete_source(self._catalog, live, record)
        await self._lineup.refresh(live)
        checked = await self._check.check(live, warm(live, record), source)
        before = live.record.model_version

        def apply(connection: Connection) -> int:
            return lifecycle.promote(
                connection,
                live.row,
                record.model_version,
                allow_missing=allow_missing,
                force=force,
                note=note,
            )

        missing = await self._changed(live, apply, "promote", note)
        dual = source is FillingSource.NONE
        return Promoted(
            record.model_version, before, checked, 0 if dual else missing, missing if dual else 0
        )

    async def rollback(
        self,
        gallery: str,
        *,
        leaving: str = "",
        reason: str = "",
        actor: Actor = Actor.CALLER,
    ) -> RolledBack:
        """Make the previous model answer again; the live one becomes the previous and is kept fed.

        Raises:
            InvalidArgument, NotFound: bad reason, unknown gallery.
            FailedPrecondition: as ``catalog.lifecycle.rollback``.
        """
        live, note = self._galleries.get(gallery), self._note(actor, reason)
        apply = partial(lifecycle.rollback, gallery_row=live.row, leaving=leaving, note=note)
        return RolledBack(*await self._changed(live, lambda c: apply(c), "rollback", note))

    async def retire(
        self, gallery: str, version: str, *, reason: str = "", actor: Actor = Actor.CALLER
    ) -> None:
        """Retire a candidate, the shadow or the previous model. Its vectors are deleted little by
        little, its index files at once.

        Raises:
            InvalidArgument, NotFound: bad or unknown version.
            FailedPrecondition: it is live or retired (``MODEL_STATE``).
        """
        live, note = self._galleries.get(gallery), self._note(actor, reason)
        wanted = domain.model_version(version)
        call.current().note(model_version=wanted)

        def apply(connection: Connection) -> bool:
            return lifecycle.retire(connection, live.row, wanted, note=note)

        if await self._changed(live, apply, "retire", note):
            try:
                await self._index_files.write(live)
            except ResightError as error:
                logger.warning("gallery %s: %s", live.name, error)

    async def pause(self, gallery: str, version: str) -> Filling:
        """Let the filling of the shadow rest.

        Raises:
            InvalidArgument, NotFound: bad or unknown version.
            FailedPrecondition: it is not being filled (``NO_FILLING``).
        """
        return await self._filling_changed(gallery, version, fillings.pause)

    async def resume(self, gallery: str, version: str) -> Filling:
        """Let it go on, and try again the crops that failed.

        Raises:
            As ``pause``.
        """
        return await self._filling_changed(gallery, version, fillings.resume)

    async def filling(self, gallery: str, version: str) -> Filling | None:
        """How far a model is filled; None for one that was never staged, and for a limited caller:
        it counts and names crops of all cameras.

        Raises:
            InvalidArgument, NotFound: bad version, unknown gallery.
        """
        live, wanted = self._galleries.get(gallery), domain.model_version(version)
        if call.current().known.is_limited:
            return None
        return await self._catalog.read(lifecycle_reads.filling, live.row, wanted)

    async def _filling_changed(
        self, gallery: str, version: str, change: Callable[..., None]
    ) -> Filling:
        live = self._galleries.get(gallery)
        record = await stored_model(self._catalog, live, version)
        await self._catalog.change(
            lambda connection: change(
                connection, live.row, record.model_version, now=self._clock.now()
            )
        )
        self._wake()
        found = await self._catalog.read(lifecycle_reads.filling, live.row, record.model_version)
        if found is None:
            raise changed_meanwhile(record)
        return found

    async def _changed(
        self, live: Gallery, apply: Callable[[Connection], T], change: str, note: Note
    ) -> T:
        async def whole() -> T:
            result = await self._catalog.change(apply, committed=lambda _: live.follow())
            call.current().note(change=change, reason=note.reason)
            MODEL_CHANGES.labels(live.name, change, note.actor.value).inc()
            why, who = f": {note.reason}" if note.reason else "", note.actor.value
            logger.info("gallery %s: %s by %s%s", live.name, change, who, why)
            if note.actor is not Actor.CALLER:
                self.told(live.name, f"{change} by {note.actor.value}: {note.reason}")
            await self._lineup.refresh(live)
            self._wake()
            return result

        return await self._unbroken.run(whole())

    def _note(self, actor: Actor, reason: str) -> Note:
        if len(reason) > MAX_REASON or not reason.isprintable():
            raise InvalidArgument(
                f"reason: send at most {MAX_REASON} printable characters", field="reason"
            )
        return Note(actor, without_credentials(reason), self._clock.now())
