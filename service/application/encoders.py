"""The encoders that run in this process, by version, shared by the galleries."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from resight.errors import FailedPrecondition, ResightError
from service.application.archives import Archives
from service.application.counted_embedder import CountedEmbedder
from service.application.serving import LoadedEncoder
from service.catalog import gallery_reads, lifecycle_reads
from service.catalog.records import GalleryRecord
from service.catalog.store import Catalog

__all__ = ["EncoderLoader", "Encoders", "nothing_loads"]

logger = logging.getLogger(__name__)

UNUSED_SECONDS = 30.0


class EncoderLoader(Protocol):
    """Makes a running encoder of a bundle."""

    async def __call__(self, archive: Path) -> LoadedEncoder:
        """The encoder of an archive, verified and warm.

        Raises:
            ResightError: the bundle does not verify or cannot run here.
        """
        ...


async def nothing_loads(archive: Path) -> LoadedEncoder:
    """Stands where no loader was given."""
    raise FailedPrecondition(
        f"this process loads no encoder besides the one it serves, and {archive.name} is asked for",
        reason="MODEL_NOT_LOADED",
    )


class Encoders:
    """Encoders in memory. All but ``loaded`` belongs to the event loop.

    Args:
        loaded: Those that run, by version; these are kept, others come in and go.
        catalog: Says which archive a model has.
        archives: Where it lies.
        load: Makes an encoder of it.
    """

    def __init__(
        self,
        loaded: dict[str, LoadedEncoder],
        *,
        catalog: Catalog,
        archives: Archives,
        load: EncoderLoader,
    ) -> None:
        self.loaded = loaded
        loaded.update({version: _counted(encoder) for version, encoder in loaded.items()})
        self._served = frozenset(loaded)
        self._catalog = catalog
        self._archives = archives
        self._load = load
        self._one_at_a_time = asyncio.Lock()
        self._unused_since: dict[str, float] = {}

    async def obtain(self, record: GalleryRecord) -> LoadedEncoder:
        """The encoder of a gallery's model, loaded from its archive when it does not run yet.

        Raises:
            FailedPrecondition: it has no archive, here or in the blob store, or the archive does
                not verify.
            ResightError: it cannot run here.
        """
        async with self._one_at_a_time:
            self._unused_since.pop(record.model_version, None)
            known = self.loaded.get(record.model_version)
            if known is not None:
                return known
            digest = await self._catalog.read(lifecycle_reads.archive_digest, record.model_row)
            if digest is None:
                raise FailedPrecondition(
                    f"gallery {record.name!r} is served with model {record.model_version}, whose "
                    f"archive is not stored; serve its bundle with --bundle",
                    field="bundle",
                    reason="MODEL_NOT_LOADED",
                )
            loaded = _counted(await self._load(await self._archives.fetch(record.name, digest)))
            if loaded.embedder.model_version != record.model_version:
                raise FailedPrecondition(
                    f"the archive of model {record.model_version} holds "
                    f"{loaded.embedder.model_version}",
                    field="bundle",
                    reason="BUNDLE_REFUSED",
                )
            self.loaded[record.model_version] = loaded
            logger.info("encoder %s loaded from its archive", record.model_version)
            return loaded

    async def load_all(self) -> None:
        """Load every encoder that galleries answer with, and those that are kept warm.

        Raises:
            ResightError: one that answers cannot be had.
        """
        for record in await self._catalog.read(gallery_reads.all_galleries):
            fed = await self._catalog.read(lifecycle_reads.fed_models, record.gallery_row)
            await self.obtain(fed.live)
            for warm in fed.all[1:]:
                await (self.obtain(warm) if fed.dual else self._attempt(warm))

    async def _attempt(self, record: GalleryRecord) -> None:
        """As ``obtain``; what fails is logged."""
        try:
            await self.obtain(record)
        except (ResightError, OSError) as error:
            logger.error(
                "gallery %s: model %s does not run here, and no crop is taken until it does or is "
                "retired: %s",
                record.name,
                record.model_version,
                error,
            )

    async def end_unused(self, used: Collection[str]) -> None:
        """End the encoders that no gallery has used for a while: a search that began before a
        change of models, or a model about to be staged, still finds its own.
        """
        now = time.monotonic()
        for version in [*self.loaded]:
            if version in used or version in self._served:
                self._unused_since.pop(version, None)
            elif now - self._unused_since.setdefault(version, now) >= UNUSED_SECONDS:
                await self._end(version)

    async def close(self) -> None:
        """End every encoder that was loaded here."""
        for version in self.loaded.keys() - self._served:
            await self._end(version)

    async def _end(self, version: str) -> None:
        self._unused_since.pop(version, None)
        loaded = self.loaded.pop(version)
        if loaded.close is not None:
            await loaded.close()
        logger.info("encoder %s ended", version)


def _counted(encoder: LoadedEncoder) -> LoadedEncoder:
    return replace(encoder, embedder=CountedEmbedder(encoder.embedder))
