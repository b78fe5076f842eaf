"""What clients were told, and the database and folder that must agree with it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import NAMESPACE_OID, UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection as Database
from sqlalchemy import create_engine, text

from resight.client.connection import Connection
from resight.v1 import gallery_service_pb2, search_service_pb2
from resight.v1.types_pb2 import Embedding

PAGE = 1000


def crop_id_of(number: int) -> str:
    """The id under which the crop of this number is sent."""
    return str(uuid5(NAMESPACE_OID, str(number)))


@dataclass
class Told:
    """What clients sent and what they were answered; shared by their threads."""

    sent: set[int] = field(default_factory=set)
    stored: set[int] = field(default_factory=set)
    deleting: set[int] = field(default_factory=set)
    deleted: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lasting(self) -> set[int]:
        """Acknowledged, and never asked to be deleted."""
        with self.lock:
            return self.stored - self.deleting


@dataclass(frozen=True)
class Stored:
    """One gallery as the database has it, read past the service."""

    crops: dict[str, tuple[bytes, str]]
    vectors: dict[str, NDArray[np.float32]]
    positions: Sequence[int]
    newest: int


class Site:
    """The data directory and database of a service.

    Args:
        data: Its data directory.
        url: SQLAlchemy URL of its catalog.
        image_of: The bytes sent as the crop of a number.
        blobs: Where images lie, when not in the data directory.
    """

    def __init__(
        self,
        data: Path,
        url: str,
        image_of: Callable[[int], bytes],
        *,
        blobs: Path | None = None,
    ) -> None:
        self.data = data
        self.url = url
        self._blobs = blobs or data / "blobs"
        self.image_of = image_of
        self.told = Told()

    @contextmanager
    def _connection(self) -> Iterator[Database]:
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                yield connection
        finally:
            engine.dispose()

    def numbers(self, statement: str) -> list[int]:
        """What a statement that selects one number a row finds."""
        with self._connection() as connection:
            return list(connection.execute(text(statement)).scalars())

    def stored(self) -> Stored:
        """The gallery ``default``."""
        with self._connection() as connection:
            crops = connection.execute(text("SELECT crop_id, sha256, blob_id FROM crops")).all()
            vectors = connection.execute(
                text("SELECT c.crop_id, e.vector FROM embeddings e JOIN crops c USING (crop_row)")
            ).all()
            positions = connection.execute(text("SELECT position FROM changes ORDER BY position"))
            return Stored(
                {
                    str(UUID(bytes=bytes(row[0]))): (bytes(row[1]), bytes(row[2]).hex())
                    for row in crops
                },
                {
                    str(UUID(bytes=bytes(row[0]))): np.frombuffer(bytes(row[1]), "<f4")
                    for row in vectors
                },
                list(positions.scalars()),
                connection.execute(text("SELECT position FROM galleries")).scalar_one(),
            )

    def check(self, connection: Connection) -> int:
        """Everything that must hold whenever nobody is writing.

        Returns:
            Crops that are there although nobody was told so.
        """
        stored, told = self.stored(), self.told
        sent = {crop_id_of(number): number for number in told.sent}
        there = {sent[crop_id] for crop_id in stored.crops}
        lost = told.lasting - there
        assert not lost, f"acknowledged and lost: {sorted(lost)[:10]}"
        risen = told.deleted & there
        assert not risen, f"deletion acknowledged, and there again: {sorted(risen)[:10]}"
        assert stored.vectors.keys() == stored.crops.keys(), "a crop without a vector, or reverse"
        assert stored.positions == list(range(1, stored.newest + 1)), "the log has a gap"
        self._check_images(stored, sent)
        self._check_index(connection, stored)
        return len(there - told.stored)

    def _check_images(self, stored: Stored, sent: dict[str, int]) -> None:
        files = {
            path.name: path
            for path in self._blobs.rglob("*")
            if path.is_file() and len(path.name) == 32
        }
        for crop_id, (digest, blob) in stored.crops.items():
            assert blob in files, f"crop {crop_id} has no image"
            assert hashlib.sha256(files[blob].read_bytes()).digest() == digest, "half an image"
            assert hashlib.sha256(self.image_of(sent[crop_id])).digest() == digest

    def _check_index(self, connection: Connection, stored: Stored) -> None:
        """Whole rankings by the service, against the vectors that the database holds."""
        stats = connection.gallery.GetGalleryStats(gallery_service_pb2.GetGalleryStatsRequest())
        assert stats.crops == stats.searchable == len(stored.crops)
        if not stored.vectors:
            return
        ids = sorted(stored.vectors)
        matrix = np.stack([stored.vectors[crop_id] for crop_id in ids]).astype(np.float64)
        query = np.random.default_rng(len(ids)).standard_normal(matrix.shape[1])
        query = (query / np.linalg.norm(query)).astype("<f4")
        embedding = Embedding(
            values=query.tobytes(), dimension=len(query), model_version=stats.model_version
        )
        scores = (matrix @ query.astype(np.float64)).astype(np.float32)
        expected = [ids[place] for place in np.lexsort((ids, -scores))]
        found: list[str] = []
        token = ""
        while True:
            answer = connection.search.Search(
                search_service_pb2.SearchRequest(
                    embedding=embedding,
                    top_k=PAGE,
                    page_token=token,
                )
            )
            found += [match.crop.crop_id for match in answer.matches]
            token = answer.next_page_token
            if not token:
                break
        assert found == expected, "the index is not what the catalog says"
