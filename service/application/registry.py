"""Registered encoders: uploaded, verified, stored, listed."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from resight.bundle import Bundle, open_bundle
from resight.errors import (
    BundleCorrupt,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from service import call
from service.adaptation_settings import ModelSettings
from service.application.archive_upload import receive
from service.application.archives import Archives
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.run_key import RunKey
from service.application.unbroken import Unbroken
from service.bundles import BundleShelf, Incoming
from service.catalog import registry, run_reads, runs
from service.catalog.registry import Registration
from service.catalog.store import Catalog
from service.domain import model as domain
from service.domain import page as pages
from service.domain.model import GateVerdict, Model
from service.domain.page import Page
from service.domain.ports import Clock

__all__ = ["Registry", "Upload"]

SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class Upload:
    """What is announced before a bundle's archive comes; nothing is checked yet."""

    gallery: str
    sha256: bytes
    size_bytes: int
    run_id: str = ""
    lease_token: str = ""
    gate: GateVerdict = field(default_factory=GateVerdict)

    @property
    def key(self) -> RunKey | None:
        """The run that registers it; None by hand."""
        return RunKey(self.gallery, self.run_id, self.lease_token) if self.run_id else None


class Registry:
    """Registers candidates and reads the models of a gallery."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        shelf: BundleShelf,
        archives: Archives,
        unbroken: Unbroken,
        clock: Clock,
        settings: ModelSettings,
        max_page_size: int,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._shelf = shelf
        self._archives = archives
        self._unbroken = unbroken
        self._clock = clock
        self._settings = settings
        self._max_page_size = max_page_size
        self._uploads = 0
        # An archive is named, committed, and on refusal taken away again, by one upload at a time.
        self._shelving = asyncio.Lock()

    async def register(self, upload: Upload, chunks: AsyncIterator[bytes]) -> Model:
        """Receive, verify and store a bundle as a candidate; whole or not at all.

        Raises:
            InvalidArgument, NotFound: the announcement, or an archive other than announced.
            FailedPrecondition: the bundle does not verify (``BUNDLE_REFUSED``), the gate refused
                it, or the run does not hold the lease.
            AlreadyExists: the gallery knows the encoder in another state.
            ResourceExhausted: too many uploads at once.
            RequestTooSlow: the archive does not come.
            Unauthenticated: the caller is let in no longer.
        """
        live = self._galleries.get(upload.gallery)
        _check(upload, self._settings)
        if upload.key is not None:
            call.current().note(run_id=str(upload.key.identifier()))
            await self._catalog.read(_run_row, live, upload.key)
        if self._uploads >= self._settings.max_uploads:
            raise ResourceExhausted(
                f"{self._uploads} bundles are being uploaded; try again later (models.max_uploads)",
                reason="TOO_MANY_UPLOADS",
                retry_after=5.0,
            )
        self._uploads += 1
        try:
            with self._shelf.receiving() as incoming:
                await receive(
                    incoming,
                    chunks,
                    size_bytes=upload.size_bytes,
                    sha256=upload.sha256,
                    bytes_per_second=self._settings.min_upload_bytes_per_second,
                )
                bundle = await asyncio.to_thread(_verified, incoming)
                item = _registration(bundle, upload)
                call.current().note(
                    model_version=item.version,
                    run_id=upload.run_id,
                    size_bytes=upload.size_bytes,
                )
                await self._unbroken.run(self._shelve(live, incoming, item, upload.key))
        finally:
            self._uploads -= 1
        return await self._model(live, item.version)

    async def get(self, gallery: str, version: str) -> tuple[Model, bytes | None]:
        """One model, and the serialised manifest of its bundle when there is one.

        Raises:
            InvalidArgument, NotFound: bad or unknown version.
        """
        live, wanted = self._galleries.get(gallery), domain.model_version(version)
        call.current().note(model_version=wanted)
        model = await self._model(live, wanted)
        row = live.record.gallery_row
        return model, await self._catalog.read(registry.manifest_of, row, wanted)

    async def list(self, gallery: str, page_size: int = 0, page_token: str = "") -> Page[Model]:
        """Models from the newest; gates without their reports.

        Raises:
            InvalidArgument, NotFound: bad page or unknown gallery.
        """
        live = self._galleries.get(gallery)
        size = pages.page_size(page_size, limit=self._max_page_size)
        listing = f"models/{live.name}"
        position = pages.decode_token(page_token, listing=listing)
        found = await self._catalog.read(
            registry.list_models,
            live.record.gallery_row,
            before=int(position[0]) if position else None,
            limit=size + 1,
        )
        token = ""
        if len(found) > size:
            token = pages.encode_token([found[size - 1][0]], listing=listing)
        call.current().note(models=len(found[:size]))
        return Page([model for _, model in found[:size]], token)

    async def _shelve(
        self, live: Gallery, incoming: Incoming, item: Registration, key: RunKey | None
    ) -> None:
        """Archive first, catalog second: a crash between the two leaves an orphan for the sweep."""
        async with self._shelving:
            # The archive may have come for hours, from somebody whose key was revoked meanwhile.
            await call.current().confirm()
            await asyncio.to_thread(self._shelf.shelve, incoming, live.name, item.sha256)
            await self._commit(live, item, key)

    async def _commit(self, live: Gallery, item: Registration, key: RunKey | None) -> None:

        def apply(connection: Connection) -> bytes | None:
            gallery_row, now = live.record.gallery_row, self._clock.now()
            runs.lock_gallery(connection, gallery_row)
            run_row = None if key is None else _run_row(connection, live, key)
            replaced = registry.register(connection, gallery_row, item, run_row=run_row, now=now)
            if run_row is not None:
                runs.note_model(connection, run_row, item.version, now=now)
            return replaced

        try:
            replaced = await self._catalog.change(apply)
        except Exception:
            if (live.name, item.sha256) not in await self._catalog.read(registry.shelved):
                self._shelf.remove(live.name, item.sha256)
            raise
        # After the commit: what lies there without a row is swept. Staging shares it again.
        await self._archives.share(live.name, item.sha256)
        if replaced is not None:
            await self._archives.remove(live.name, replaced)

    async def _model(self, live: Gallery, version: str) -> Model:
        found = await self._catalog.read(registry.find_model, live.record.gallery_row, version)
        if found is None:
            raise NotFound(
                f"model {version[:80]!a} is not in gallery {live.name!r}; ListModels names those "
                "there are",
                field="model_version",
                reason="MODEL_NOT_FOUND",
            )
        return found


def _check(upload: Upload, settings: ModelSettings) -> None:
    if len(upload.sha256) != SHA256_BYTES:
        raise InvalidArgument(
            f"upload.sha256 has {len(upload.sha256)} bytes; send the archive's SHA-256, 32 bytes",
            field="upload.sha256",
        )
    if not 0 < upload.size_bytes <= settings.max_bundle_bytes:
        raise InvalidArgument(
            f"upload.size_bytes is {upload.size_bytes}; send the archive's size, at most "
            f"{settings.max_bundle_bytes} (models.max_bundle_bytes)",
            field="upload.size_bytes",
        )
    upload.gate.admitted(max_bytes=settings.max_gate_bytes)


def _verified(incoming: Incoming) -> Bundle:
    """Every digest and the golden outputs; the unpacked files live as long as the result."""
    try:
        return open_bundle(incoming.path)
    except (BundleCorrupt, InvalidArgument) as error:
        raise FailedPrecondition(
            f"the uploaded bundle is refused: {_without_places(error.message, incoming.path)}",
            field=error.field,
            reason="BUNDLE_REFUSED",
        ) from error


def _without_places(message: str, archive: Path) -> str:
    """The message without the folders in which the archive lies here and is unpacked."""
    for folder in (str(archive.parent), tempfile.gettempdir()):
        message = re.sub(rf"{re.escape(folder)}/(?:resight-bundle-[^/\s]*/)?", "", message)
    return message


def _registration(bundle: Bundle, upload: Upload) -> Registration:
    provenance = bundle.manifest.provenance
    if len(provenance.parent_version) > domain.MAX_VERSION or len(provenance.method) > (
        domain.MAX_METHOD
    ):
        raise FailedPrecondition(
            "the uploaded bundle is refused: provenance.parent_version or provenance.method is "
            "too long",
            field="manifest.json",
            reason="BUNDLE_REFUSED",
        )
    return Registration(
        version=bundle.model_version,
        dimension=bundle.dimension,
        sha256=upload.sha256,
        size_bytes=upload.size_bytes,
        manifest=bundle.manifest.SerializeToString(deterministic=True),
        parent_version=provenance.parent_version,
        method=provenance.method,
        gate=upload.gate,
    )


def _run_row(connection: Connection, live: Gallery, key: RunKey) -> int:
    return run_reads.require_holder(
        connection, live.record.gallery_row, key.identifier(), key.token_digest
    ).run_row
