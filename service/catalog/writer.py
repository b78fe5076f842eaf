"""The one thread that writes to the catalog, many requests in one transaction.

A commit costs a flush to disk. While one commit runs, other requests queue up, and the next
transaction takes all of them: under load the flush is shared, and alone nobody waits for company.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from resight.errors import ResightError, ResourceExhausted, Unavailable
from service.catalog.crop_writes import insert_crops
from service.catalog.engine import unavailable
from service.catalog.records import CropInsert, InsertOutcome, InsertStatus
from service.domain.ports import Clock
from service.telemetry import CATALOG_COMMITS

__all__ = ["CatalogWriter"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Change(Generic[T]):
    apply: Callable[[Connection], T]
    committed: Callable[[T], None] | None
    future: Future[T] = field(default_factory=Future)


@dataclass(slots=True)
class _Work(Generic[T]):
    work: Callable[[], T]
    future: Future[T] = field(default_factory=Future)


@dataclass(slots=True)
class _Insert:
    item: CropInsert
    future: Future[InsertOutcome] = field(default_factory=Future)


_Request = _Change[Any] | _Insert | _Work[Any]


class CatalogWriter:
    """Runs changes in the order in which they were submitted.

    A future resolves after the commit, and after the index has been told: what a caller was
    acknowledged is durable, and a search begun afterwards finds it.

    Args:
        engine: Engine of the writing connection.
        clock: Gives creation times.
        inserted: Told of every committed batch of crops and the position of each, on the writer's
            thread.
        max_group: Most requests in one transaction.
        max_pending: Requests waiting beyond this are refused.

    Attributes:
        commits: Transactions committed.
        committed: Told of every commit, on the writer's thread; must return at once.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        clock: Clock,
        inserted: Callable[[Sequence[tuple[CropInsert, int]]], None],
        max_group: int,
        max_pending: int,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._inserted = inserted
        self._max_group = max_group
        self._max_pending = max_pending
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self.commits = 0
        self.committed: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="catalog-writer", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """Requests waiting."""
        return self._queue.qsize()

    def change(
        self,
        apply: Callable[[Connection], T],
        *,
        committed: Callable[[T], None] | None = None,
    ) -> Future[T]:
        """Run ``apply`` in a transaction, then, on the same thread, ``committed``."""
        request = _Change(apply, committed)
        self._put(request)
        return request.future

    def insert(self, item: CropInsert) -> Future[InsertOutcome]:
        """Store one crop."""
        request = _Insert(item)
        self._put(request)
        return request.future

    def insert_all(self, items: Sequence[CropInsert]) -> list[Future[InsertOutcome]]:
        """Store crops one after the other, with no other request between them."""
        requests = [_Insert(item) for item in items]
        self._put(*requests)
        return [request.future for request in requests]

    def run(self, work: Callable[[], T]) -> Future[T]:
        """Run ``work`` on the writer's thread, between two transactions."""
        request = _Work(work)
        self._put(request)
        return request.future

    def close(self) -> None:
        """Finish what was submitted, then stop."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _put(self, *requests: _Request) -> None:
        with self._gate:
            if self._closed:
                raise Unavailable("the service is stopping; send it again", reason="STOPPING")
            # Its own work is not put off: an index that lags would never catch up under load.
            own = all(isinstance(request, _Work) for request in requests)
            if not own and self._queue.qsize() >= self._max_pending:
                raise ResourceExhausted(
                    f"{self._max_pending} writes are waiting for the catalog; send it again later, "
                    "or raise catalog.max_pending_writes",
                    reason="CATALOG_BUSY",
                )
            for request in requests:
                self._queue.put(request)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group: list[_Change[Any] | _Insert] = []
            between: _Work[Any] | None = None
            request = self._queue.get()
            while request is not None:
                if isinstance(request, _Work):
                    between = request
                    break
                group.append(request)
                if len(group) == self._max_group:
                    break
                try:
                    request = self._queue.get_nowait()
                except queue.Empty:
                    break
            stopping = request is None
            # From here on a request cannot be cancelled: its commit may already be on its way.
            group = [request for request in group if request.future.set_running_or_notify_cancel()]
            if group:
                self._settle(group)
            if between is not None and between.future.set_running_or_notify_cancel():
                _finish(between)

    def _settle(self, group: list[_Change[Any] | _Insert]) -> None:
        """Commit the group; if that fails, one by one, so that one request fails alone."""
        try:
            results = self._commit(group)
        except Exception as error:
            if len(group) > 1:
                for request in group:
                    self._settle([request])
            else:
                group[0].future.set_exception(_failure(error))
            return
        self.commits += 1
        CATALOG_COMMITS.inc()
        self.committed()
        self._publish(group, results)

    def _commit(self, group: Sequence[_Change[Any] | _Insert]) -> list[Any]:
        results: list[Any] = []
        with self._engine.begin() as connection:
            index = 0
            while index < len(group):
                request = group[index]
                if isinstance(request, _Insert):
                    run = _leading_inserts(group[index:])
                    items = [insert.item for insert in run]
                    results.extend(insert_crops(connection, items, now=self._clock.now()))
                    index += len(run)
                else:
                    # Alone it is undone with the transaction, and a savepoint costs as much again.
                    alone = len(group) == 1
                    results.append(
                        request.apply(connection) if alone else _attempt(connection, request)
                    )
                    index += 1
        return results

    def _publish(self, group: Sequence[_Change[Any] | _Insert], results: Sequence[Any]) -> None:
        """Tell the index, in the order of the log, then the callers."""
        run: list[tuple[CropInsert, int]] = []
        for request, result in zip(group, results, strict=True):
            if isinstance(request, _Insert):
                if result.status is InsertStatus.INSERTED:
                    run.append((request.item, result.position))
                continue
            self._tell_inserted(run)
            run = []
            if request.committed is not None and not isinstance(result, ResightError):
                _guarded(request.committed, result)
        self._tell_inserted(run)
        for request, result in zip(group, results, strict=True):
            if isinstance(result, ResightError):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

    def _tell_inserted(self, run: Sequence[tuple[CropInsert, int]]) -> None:
        if run:
            _guarded(self._inserted, run)


def _finish(request: _Work[Any]) -> None:
    try:
        request.future.set_result(request.work())
    except Exception as error:
        request.future.set_exception(error)


def _attempt(connection: Connection, request: _Change[Any]) -> Any:
    """A change in a savepoint: a refusal undoes this change and leaves its neighbours alone."""
    try:
        with connection.begin_nested():
            return request.apply(connection)
    except ResightError as error:
        return error


def _leading_inserts(group: Sequence[_Change[Any] | _Insert]) -> list[_Insert]:
    run: list[_Insert] = []
    for request in group:
        if not isinstance(request, _Insert):
            break
        run.append(request)
    return run


def _guarded(told: Callable[[Any], None], value: Any) -> None:
    """The commit stands, whatever a listener does with it."""
    try:
        told(value)
    except Exception:
        logger.exception("a committed change could not be applied to the index")


def _failure(error: Exception) -> Exception:
    if isinstance(error, SQLAlchemyError):
        return unavailable(error)
    return error
