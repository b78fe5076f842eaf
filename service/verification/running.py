"""Verification of a service that runs: what is compared is the index that answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import InvalidArgument, ResourceExhausted
from service import call
from service.application.blob_sweep import BlobsInFlight
from service.application.following import BLOCK, reread
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.index_keeper import IndexKeeper
from service.application.serving import Serving
from service.catalog import log_reads
from service.catalog.store import Catalog
from service.domain.ports import BlobStore, Clock
from service.gallery.index import SegmentedIndex, Snapshot
from service.verification.elsewhere import compare_elsewhere
from service.verification.findings import Findings, Report, Told
from service.verification.gallery import compare, compare_warm
from service.verification.images import ImageCheck

__all__ = ["Progress", "Verification"]

DEFAULT_SAMPLE = 100
MAX_SAMPLE = 10_000_000
# Between two messages of progress.
INTERVAL = 0.5


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being compared, and how much of it is done."""

    stage: str
    done: int


class _AbandonedError(Exception):
    """The caller has left."""


class Verification:
    """Compares catalog, live index and images of a gallery, one gallery at a time."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        blobs: BlobStore,
        in_flight: BlobsInFlight,
        index_files: IndexKeeper,
        images_stored: bool,
        clock: Clock,
        removed_after: timedelta,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._blobs = blobs
        self._in_flight = in_flight
        self._index_files = index_files
        self._images_stored = images_stored
        self._clock = clock
        self._removed_after = removed_after
        self._running = asyncio.Lock()

    async def verify(
        self,
        gallery: str,
        *,
        all_images: bool = False,
        sample: int | None = None,
        repair: bool = False,
    ) -> AsyncGenerator[Progress | Report, None]:
        """Compare a gallery; yields its progress, then its report.

        Args:
            gallery: Its name.
            all_images: Read every image.
            sample: Read so many instead; None takes 100.
            repair: Make the index what the catalog says, and write its files.

        Raises:
            InvalidArgument, NotFound: bad arguments, unknown gallery.
            ResourceExhausted: another verification is running.
            Unavailable: catalog or blob store do not answer, or the model that answers does not
                run here (``MODEL_NOT_LOADED``).
        """
        live = self._galleries.get(gallery)
        live.answering()
        wanted = _wanted(all_images, sample)
        call.current().note(repair=repair)
        if self._running.locked():
            raise ResourceExhausted(
                "a verification is running; begin when it has ended",
                reason="VERIFICATION_RUNNING",
                retry_after=10.0,
            )
        async with self._running:
            told: asyncio.Queue[Progress] = asyncio.Queue()
            abandoned = threading.Event()
            tell = _teller(told, abandoned)
            work = asyncio.create_task(asyncio.to_thread(self._compare, live, wanted, repair, tell))
            try:
                while not work.done():
                    waiting = asyncio.create_task(told.get())
                    await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
                    if waiting.done():
                        yield waiting.result()
                    waiting.cancel()
                report = await work
            finally:
                abandoned.set()
                await asyncio.wait((work,))
                # Nobody asks what became of work that was abandoned.
                work.exception()
            if report.repaired:
                await self._index_files.write(live)
            yield report

    def _compare(self, live: Gallery, sample: int | None, repair: bool, told: Told) -> Report:
        findings = Findings()
        with ExitStack() as stack:
            connection, states = self._pinned(live, stack)
            (serving, snapshot), *warm = states
            compared = compare(connection, serving.record, snapshot, findings=findings, told=told)
            wrong = set(compared.wrong)
            for other, held in warm:
                if held is not None:
                    wrong.update(compare_warm(connection, other.record, held, findings))
        report = compared.report
        for each, held in states:
            if held is None:
                wrong.update(compare_elsewhere(self._catalog, live, each, findings))
                if each is serving:
                    report = replace(report, rows=len(each.index))
        images = ImageCheck(
            live.name,
            live.row,
            self._blobs,
            now=lambda read: self._catalog.read_now(read),
            expected=self._images_stored,
            in_flight=self._in_flight.among,
            deleted_before=self._clock.now() - self._removed_after,
            told=told,
        )
        images.compare(findings, sample=sample)
        report = replace(
            report,
            images=len(images),
            images_read=images.read,
            findings=findings.all(),
        )
        if repair and wrong:
            self._mend(live, sorted(wrong))
            report = replace(report, repaired=len(wrong))
        return report

    def _pinned(
        self, live: Gallery, stack: ExitStack
    ) -> tuple[Connection, Sequence[tuple[Serving, Snapshot | None]]]:
        """A connection that sees the state that the indexes are up to, taken between two writes;
        without a snapshot where the rows lie outside this process.
        """

        def look() -> tuple[Connection, Sequence[tuple[Serving, Snapshot | None]]]:
            while True:
                live.follow()
                opened = ExitStack()
                connection = opened.enter_context(self._catalog.connect_apart())
                if log_reads.newest_position(connection, live.row) == live.applied:
                    stack.push(opened)
                    return connection, [(each, _snapshot(each)) for each in live.models.fed]
                # Another replica has written in between.
                opened.close()

        return self._catalog.writer.run(look).result()

    def _mend(self, live: Gallery, wrong: Sequence[UUID]) -> None:
        def again(ids: Sequence[UUID]) -> None:
            with self._catalog.connect() as connection:
                for serving in live.models.fed:
                    reread(connection, (serving.record, serving.index), ids)

        for start in range(0, len(wrong), BLOCK):
            work: Callable[[], None] = partial(again, wrong[start : start + BLOCK])
            self._catalog.writer.run(work).result()


def _snapshot(serving: Serving) -> Snapshot | None:
    index = serving.index
    return index.snapshot if isinstance(index, SegmentedIndex) else None


def _wanted(all_images: bool, sample: int | None) -> int | None:
    """How many images to read; None for all."""
    if all_images:
        if sample is not None:
            raise InvalidArgument(
                "all_images and sample exclude each other; send one", field="sample"
            )
        return None
    if sample is None:
        return DEFAULT_SAMPLE
    if not 0 <= sample <= MAX_SAMPLE:
        raise InvalidArgument(
            f"sample is {sample}; send 0 to {MAX_SAMPLE}, or all_images", field="sample"
        )
    return sample


def _teller(told: asyncio.Queue[Progress], abandoned: threading.Event) -> Told:
    """Counts on the comparing thread, and now and then says so on the loop."""
    loop = asyncio.get_running_loop()
    done: dict[str, int] = {}
    last = loop.time()

    def tell(stage: str, count: int) -> None:
        nonlocal last
        if abandoned.is_set():
            raise _AbandonedError
        done[stage] = done.get(stage, 0) + count
        if loop.time() - last >= INTERVAL:
            last = loop.time()
            loop.call_soon_threadsafe(told.put_nowait, Progress(stage, done[stage]))

    return tell
