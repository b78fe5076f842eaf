"""Checkpoints copied to where the owner of the database cannot change them.

One small JSON file a checkpoint, ``CHAIN/SEQUENCE-KIND.json``, under any fsspec URL: a folder, S3
with an object lock, … A file is written once. What could not be copied stays noted in the catalog
and is tried again, by any replica, also after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

from resight.errors import InvalidArgument, ResightError
from service.audit.checkpoints import Checkpoint
from service.audit.linking import Writer
from service.catalog import audit as statements
from service.catalog.store import Catalog
from service.domain.ports import Clock
from service.file_systems import open_file_system
from service.telemetry import AUDIT_WRITE_FAILURES

__all__ = ["AnchorStore", "Anchoring", "open_anchors"]

logger = logging.getLogger(__name__)

_SETTING = "audit.anchor_url"
_RETRY_SECONDS = 30.0
_CLOSE_SECONDS = 10.0
_MOST_BYTES = 64 * 1024


class AnchorStore:
    """The files.

    Args:
        files: An fsspec file system.
        root: Where on it.
    """

    def __init__(self, files: Any, root: str) -> None:
        self._files = files
        self._root = root.rstrip("/")

    def put(self, made: Checkpoint, public_key: str) -> None:
        """Copy a checkpoint; one that is there already stays as it is."""
        folder = f"{self._root}/{made.chain_id.hex}"
        path = f"{folder}/{made.sequence:016d}-{made.kind}.json"
        # Drivers remember what they have listed.
        self._files.invalidate_cache()
        if self._files.exists(path):
            return
        self._files.makedirs(folder, exist_ok=True)
        self._files.pipe_file(path, made.to_json(public_key).encode())

    def all(self) -> Iterator[tuple[str, bytes]]:
        """Every file: name and content.

        Raises:
            InvalidArgument: they cannot be read.
        """
        try:
            self._files.invalidate_cache()
            for path in sorted(self._files.find(self._root)):
                if str(path).endswith(".json"):
                    yield str(path), self._files.cat_file(path, start=0, end=_MOST_BYTES)
        except Exception as error:  # whatever a driver raises
            raise InvalidArgument(
                f"the anchors cannot be read: {type(error).__name__}: {error}", field="anchors"
            ) from error


class Anchoring:
    """Copies what is not copied yet: after every checkpoint, and again while something is left.

    Args:
        store: Where to.
        catalog: Where checkpoints are read.
        writer: Where it is noted that one was copied.
        clock: Gives the time of that.
    """

    def __init__(self, store: AnchorStore, catalog: Catalog, writer: Writer, clock: Clock) -> None:
        self._store = store
        self._catalog = catalog
        self._writer = writer
        self._clock = clock
        self._due = asyncio.Event()
        self._closing = False
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._due.set()
        self._running = asyncio.create_task(self._run())

    def ring(self) -> None:
        """There is a new checkpoint."""
        self._due.set()

    async def close(self) -> None:
        """Stop after a last try."""
        if self._running is None:
            return
        # Not cancelled: its thread would go on, and write a file beside the last try.
        self._closing = True
        self._due.set()
        done, _ = await asyncio.wait([self._running], timeout=_CLOSE_SECONDS)
        if not done:
            self._running.cancel()
            await asyncio.wait([self._running])
            logger.warning("%s: the last checkpoint is copied at the next start", _SETTING)

    async def _run(self) -> None:
        left = False
        while True:
            try:
                async with asyncio.timeout(_RETRY_SECONDS if left else None):
                    await self._due.wait()
            except TimeoutError:
                pass
            self._due.clear()
            is_last = self._closing
            left = not await self._copy()
            if is_last:
                return

    async def _copy(self) -> bool:
        """Whether nothing is left."""
        copied: list[Checkpoint] = []
        waiting: list[Checkpoint] = []
        failed = False
        try:
            waiting, keys = await self._catalog.read(_waiting)
            for made in waiting:
                await asyncio.to_thread(self._store.put, made, keys.get(made.signer, ""))
                copied.append(made)
        except Exception as error:  # whatever a driver raises: the next try comes
            failed = True
            AUDIT_WRITE_FAILURES.inc()
            logger.error("%s: a checkpoint could not be copied: %s", _SETTING, error)
        if not copied:
            return not failed
        try:
            noting: Future[Any] = self._writer.change(
                partial(_noted, copied=copied, now=self._clock.now())
            )
            await asyncio.wrap_future(noting)
        except ResightError as error:
            logger.warning("%s: what was copied could not be noted: %s", _SETTING, error)
            return False
        # A page of them was read: there may be more.
        return not failed and len(waiting) < statements.BLOCK


def open_anchors(url: str) -> AnchorStore:
    """The anchors of a URL; nothing is made or read yet.

    Raises:
        InvalidArgument: the URL names nothing that fsspec knows.
    """
    try:
        files, root = open_file_system(url)
    except (ValueError, ImportError, OSError) as error:
        raise InvalidArgument(
            f"{_SETTING} cannot be used ({error}); name a folder (file:///…) or a store of which "
            "the fsspec driver is installed (s3://…)",
            field=_SETTING,
        ) from error
    return AnchorStore(files, root)


def _waiting(connection: Any) -> tuple[list[Checkpoint], dict[str, str]]:
    return statements.not_anchored(connection), statements.signers(connection)


def _noted(connection: Any, copied: list[Checkpoint], now: Any) -> None:
    statements.anchored(connection, copied, now)
