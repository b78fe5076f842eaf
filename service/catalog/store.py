"""The catalog: opened, read by a few threads, written by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from service.catalog import schema
from service.catalog.engine import open_engine, unavailable
from service.catalog.mailbox import Mailbox
from service.catalog.records import CropInsert, InsertOutcome
from service.catalog.writer import CatalogWriter
from service.context_threads import ContextThreads
from service.domain.ports import Clock
from service.telemetry import stage

__all__ = ["Catalog"]

P = ParamSpec("P")
T = TypeVar("T")


class Catalog:
    """Reads and writes the catalog without blocking the event loop.

    Args:
        url: SQLAlchemy URL.
        clock: Gives creation times.
        inserted: Told of committed crops and the position of each, on the writer's thread, before
            their futures resolve.
        read_threads: Reads at the same time.
        max_group: Most writes in one transaction.
        max_pending: Most writes waiting.
        auto_upgrade: Whether a SQLite file of an older schema is upgraded.

    Raises:
        InvalidArgument, FailedPrecondition, Unavailable: the catalog cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        inserted: Callable[[Sequence[tuple[CropInsert, int]]], None] = lambda _: None,
        read_threads: int = 2,
        max_group: int = 256,
        max_pending: int = 4096,
        auto_upgrade: bool = True,
    ) -> None:
        self._write_engine: Engine = open_engine(url, pool_size=1, writer=True)
        schema.prepare(self._write_engine, auto_upgrade=auto_upgrade)
        self._read_engine: Engine = open_engine(url, pool_size=read_threads + 1, writer=False)
        self._mail: Mailbox | None = None
        self._readers = ContextThreads(read_threads, thread_name_prefix="catalog-read")
        self.writer = CatalogWriter(
            self._write_engine,
            clock=clock,
            inserted=inserted,
            max_group=max_group,
            max_pending=max_pending,
        )

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A reading connection on this thread; it sees one state of the catalog throughout.

        Raises:
            Unavailable: the database does not answer.
        """
        try:
            with self._read_engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise unavailable(error) from error

    @contextmanager
    def connect_apart(self) -> Iterator[Connection]:
        """As ``connect``, on a connection of its own: for reads of minutes, which would take one
        from all the others. May be used on another thread than the one that opened it.

        Raises:
            Unavailable: the database does not answer.
        """
        url = self._read_engine.url.render_as_string(hide_password=False)
        engine = open_engine(url, pool_size=1, writer=False)
        try:
            with engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise unavailable(error) from error
        finally:
            engine.dispose()

    def read_now(
        self, read: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a read on this thread.

        Raises:
            Unavailable: the database does not answer.
        """
        with self.connect() as connection:
            return read(connection, *args, **kwargs)

    async def read(
        self, read: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a read on one of the reading threads."""

        def timed() -> T:
            with stage("db"):
                return self.read_now(read, *args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._readers, timed)

    async def change(
        self,
        apply: Callable[[Connection], T],
        *,
        committed: Callable[[T], None] | None = None,
    ) -> T:
        """Run a change; returns after its commit."""
        with stage("db"):
            return await asyncio.wrap_future(self.writer.change(apply, committed=committed))

    async def insert(self, item: CropInsert) -> InsertOutcome:
        """Store one crop, together with whoever else is waiting; returns after the commit."""
        with stage("db"):
            return await self._mailbox().result(self.writer.insert(item))

    async def insert_all(self, items: Sequence[CropInsert]) -> list[InsertOutcome | BaseException]:
        """Store crops in this order; what became of each, or why it failed, after the commit."""
        with stage("db", items=len(items)):
            return await self._mailbox().results(self.writer.insert_all(items))

    def _mailbox(self) -> Mailbox:
        loop = asyncio.get_running_loop()
        if self._mail is None or self._mail.loop is not loop:
            self._mail = Mailbox(loop)
        return self._mail

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the writer's thread, between two transactions."""
        return await asyncio.wrap_future(self.writer.run(work))

    def connections_in_use(self) -> dict[str, int]:
        """Connections that somebody reads or writes on, by pool."""
        pools = {"read": self._read_engine.pool, "write": self._write_engine.pool}
        return {
            name: pool.checkedout() for name, pool in pools.items() if isinstance(pool, QueuePool)
        }

    def close(self) -> None:
        """Finish the writes that were submitted, then close every connection."""
        self.writer.close()
        self._readers.shutdown()
        self._read_engine.dispose()
        self._write_engine.dispose()
