"""Everything that keeps models beside the live one: loaded, filled, looked at, taken away."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor, ThreadPoolExecutor

import faiss

from service.application.archives import Archives
from service.application.embed import Embed
from service.application.encoders import Encoders
from service.application.filler import Filler
from service.application.galleries import Galleries
from service.application.index_keeper import IndexKeeper
from service.application.lifecycle import Lifecycle
from service.application.lineup import Lineup
from service.application.mirror import Mirror
from service.application.model_check import ModelCheck
from service.application.model_removal import ModelRemoval
from service.application.promotion_policy import PromotionPolicy
from service.application.query_vectors import QueryVectors
from service.application.reembedding import Reembedding
from service.application.repeating import Repeating
from service.application.served_bundle import ServedBundle
from service.application.unbroken import Unbroken
from service.catalog.store import Catalog
from service.domain.ports import BlobStore, Clock
from service.settings import ServiceSettings

__all__ = ["ModelKeeping"]

TIDY_SECONDS = 10.0


class ModelKeeping:
    """The models of all galleries; ``start`` on the event loop, ``close`` at the end.

    Args:
        loop: The event loop.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        *,
        loop: asyncio.AbstractEventLoop,
        catalog: Catalog,
        galleries: Galleries,
        archives: Archives,
        encoders: Encoders,
        index_files: IndexKeeper,
        blobs: BlobStore,
        blob_threads: Executor,
        unbroken: Unbroken,
        clock: Clock,
    ) -> None:
        models = settings.models
        self._poll_seconds = models.poll_seconds
        self._encoders = encoders
        self.lineup = Lineup(loop, catalog=catalog, galleries=galleries, encoders=encoders)
        reembedding = Reembedding(
            catalog=catalog, blobs=blobs, blob_threads=blob_threads, archives=archives
        )
        self._filler = Filler(
            catalog=catalog,
            galleries=galleries,
            reembedding=reembedding,
            clock=clock,
            settings=models,
        )
        self._removal = ModelRemoval(
            catalog=catalog,
            galleries=galleries,
            archives=archives,
            block=models.removal_block,
            keep_archives=models.keep_retired,
        )
        self.lifecycle = Lifecycle(
            catalog=catalog,
            galleries=galleries,
            archives=archives,
            encoders=encoders,
            lineup=self.lineup,
            index_files=index_files,
            served_bundle=ServedBundle(settings.bundle, catalog=catalog, archives=archives),
            reembedding=reembedding,
            check=ModelCheck(catalog=catalog, reembedding=reembedding, sample=models.verify_sample),
            unbroken=unbroken,
            clock=clock,
            images_stored=settings.privacy.store_images,
            wake=self._wake,
        )
        self._mirror_thread = ThreadPoolExecutor(
            1, "mirror", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        embed = Embed(galleries=galleries, limits=settings.limits)
        self.mirror = Mirror(
            share=models.mirror_share,
            queue=models.mirror_queue,
            vectors=QueryVectors(catalog=catalog, embed=embed, limits=settings.limits),
            search_threads=self._mirror_thread,
            deepest=settings.limits.max_ranked,
        )
        self._policy = PromotionPolicy(
            catalog=catalog,
            galleries=galleries,
            lifecycle=self.lifecycle,
            mirror=self.mirror,
            clock=clock,
            settings=models,
        )
        self._repeating: list[Repeating] = []

    def start(self) -> None:
        """Begin what is done in the background."""
        self.lineup.refresh_unready()
        self._repeating = [
            Repeating("filling shadows", self._filler.fill_all, interval=self._poll_seconds),
            Repeating("removing models", self._removal.remove_all, interval=self._poll_seconds),
            Repeating("looking at models", self._policy.look, interval=self._poll_seconds),
            Repeating("ending encoders", self.lineup.end_unused, interval=TIDY_SECONDS),
            Repeating("mirroring searches", self.mirror.run, interval=self._poll_seconds),
        ]

    async def close(self) -> None:
        """End it, and every encoder that was loaded."""
        for repeating in self._repeating:
            await repeating.close()
        await self.lineup.close()
        await asyncio.to_thread(self._mirror_thread.shutdown)
        await self._encoders.close()

    def _wake(self) -> None:
        for repeating in self._repeating:
            repeating.wake()
