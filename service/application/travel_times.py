"""Travel times of a gallery: learned from its newest tracks when asked for, kept in memory.

Learning reads a bounded number of crops and compares a bounded number of tracks, one gallery at a
time on a thread of its own. Whoever follows a person waits for the first table alone; an old one is
learned again behind the answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from resight.errors import DeadlineExceeded, NotFound
from service import call
from service.application import visibility
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.serving import Serving
from service.catalog import track_reads
from service.catalog.store import Catalog
from service.catalog.track_reads import TrackedCrop
from service.domain.ports import Clock
from service.domain.principal import ANY_TIME
from service.domain.travel_times import LearnedTravelTimes
from service.retrieval.probability import lowest_score
from service.retrieval.travel_times import Learned, learned, tracks_of
from service.settings import TravelTimeSettings

__all__ = ["TravelTimes"]

logger = logging.getLogger(__name__)

# Milvus answers for at most 16,384 rows a call.
CROPS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class _Kept:
    table: LearnedTravelTimes
    moment: float


class TravelTimes:
    """Learns and keeps travel times. Used on the event loop only.

    Args:
        catalog: Where crops are read.
        galleries: Those served.
        clock: The time of day.
        settings: How much is looked at, what counts.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        clock: Clock,
        settings: TravelTimeSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._clock = clock
        self._settings = settings
        self._kept: dict[str, _Kept] = {}
        self._learning: dict[str, asyncio.Task[LearnedTravelTimes]] = {}
        self._thread = ThreadPoolExecutor(1, "travel-times")

    def get(self, gallery: str) -> LearnedTravelTimes:
        """What was learned last.

        Raises:
            InvalidArgument, NotFound: no such gallery, or nothing was learned since the start.
        """
        live = self._galleries.get(gallery)
        kept = self._kept.get(live.name)
        if kept is None:
            raise NotFound(
                f"gallery {live.name!r} has learned no travel times since the service began; call "
                "LearnTravelTimes (`resight cameras travel-times --learn`)",
                field="gallery",
                reason="TRAVEL_TIMES_NOT_LEARNED",
            )
        return _visible(live, kept.table)

    async def learn(self, gallery: str, *, deadline: float | None = None) -> LearnedTravelTimes:
        """Learn from the gallery as it is now; whoever asks meanwhile shares the answer. All crops
        are learned from; of the pairs the caller gets those of cameras that it may see.

        Raises:
            InvalidArgument, NotFound: no such gallery.
            DeadlineExceeded: the deadline passed before it was done; it is done all the same.
        """
        live = self._galleries.get(gallery)
        task = self._begun(live)
        left = None if deadline is None else deadline - time.monotonic()
        try:
            return _visible(live, await asyncio.wait_for(asyncio.shield(task), left))
        except TimeoutError as error:
            raise DeadlineExceeded(
                "the deadline passed while travel times were learned; they will be there when it "
                "is done: ask again, or allow more time"
            ) from error

    async def recent(self, gallery: str, *, deadline: float | None = None) -> LearnedTravelTimes:
        """What was learned last, learned now when nothing was; an old table is learned again in
        the background.

        Raises:
            As ``learn``.
        """
        live = self._galleries.get(gallery)
        kept = self._kept.get(live.name)
        if kept is None:
            return await self.learn(gallery, deadline=deadline)
        if time.monotonic() - kept.moment > self._settings.refresh_seconds:
            self._begun(live)
        return _visible(live, kept.table)

    async def close(self) -> None:
        """Learn no more; what is being compared is finished and forgotten."""
        learning = list(self._learning.values())
        for task in learning:
            task.cancel()
        await asyncio.gather(*learning, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    def _begun(self, gallery: Gallery) -> asyncio.Task[LearnedTravelTimes]:
        running = self._learning.get(gallery.name)
        if running is None:
            running = asyncio.create_task(self._learn(gallery))
            self._learning[gallery.name] = running
            running.add_done_callback(lambda task: self._ended(gallery.name, task))
        return running

    def _ended(self, name: str, task: asyncio.Task[LearnedTravelTimes]) -> None:
        del self._learning[name]
        if not task.cancelled() and task.exception() is not None:
            logger.error(
                "gallery %s: travel times could not be learned", name, exc_info=task.exception()
            )

    async def _learn(self, gallery: Gallery) -> LearnedTravelTimes:
        began = time.monotonic()
        serving, row = gallery.serving, gallery.record.gallery_row
        position = gallery.applied
        crops = await self._catalog.read(
            track_reads.newest_crops, row, limit=self._settings.max_crops
        )
        calibration = serving.encoder.calibration
        probability = None if calibration is None else self._settings.min_probability
        lowest = (
            None
            if calibration is None
            else lowest_score(calibration, self._settings.min_probability)
        )
        found, there, tracks = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._compared, serving, crops, lowest
        )
        table = LearnedTravelTimes(
            pairs=found.pairs,
            learned_at=self._clock.now(),
            position=position,
            model_version=serving.version,
            crops=there,
            tracks=tracks,
            lowest_score=found.lowest_score,
            lowest_probability=probability,
        )
        self._kept[gallery.name] = _Kept(table, time.monotonic())
        logger.info(
            "gallery %s: travel times of %d of %d pairs of cameras learned in %.2f s, %d tracks",
            gallery.name, len(table.table), len(found.pairs), time.monotonic() - began, tracks,
        )  # fmt: skip
        return table

    def _compared(
        self, serving: Serving, crops: list[TrackedCrop], lowest: float | None
    ) -> tuple[Learned, int, int]:
        settings = self._settings
        known: list[TrackedCrop] = []
        parts = [np.empty((0, serving.record.dimension), np.float32)]
        for start in range(0, len(crops), CROPS_AT_ONCE):
            asked = crops[start : start + CROPS_AT_ONCE]
            places, vectors = serving.index.vectors_of([crop.crop_id for crop in asked])
            known += [asked[place] for place in places.tolist()]
            parts.append(vectors)
        tracks = tracks_of(
            [crop.camera_id for crop in known],
            [crop.track_id for crop in known],
            np.array([crop.micros for crop in known], np.int64),
            np.concatenate(parts),
            horizon_seconds=settings.horizon_seconds,
            most=settings.max_tracks,
        )
        found = learned(
            tracks,
            horizon_seconds=settings.horizon_seconds,
            min_hops=settings.min_matches,
            lowest_score=lowest,
            score_quantile=settings.score_quantile,
        )
        return found, len(known), len(tracks.cameras)


def _visible(gallery: Gallery, table: LearnedTravelTimes) -> LearnedTravelTimes:
    """Without what counts crops that the caller does not see."""
    principal = call.current().known
    if not principal.is_limited:
        return table
    cameras = visibility.visible_cameras(gallery)
    pairs = [
        pair if principal.capture_range == ANY_TIME else replace(pair, matches=0)
        for pair in table.pairs
        if cameras is None or {pair.from_camera_id, pair.to_camera_id} <= set(cameras)
    ]
    return replace(table, pairs=pairs, position=0, crops=0, tracks=0)
