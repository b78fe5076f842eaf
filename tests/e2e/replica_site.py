"""Several real services on one PostgreSQL, with one blob store and one ledger of erasures."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import create_engine, text

from resight.client.connection import Connection, connect
from resight.client.faults import translated
from resight.errors import NotFound, Unavailable
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e import forked
from tests.e2e.conftest import ServiceProcess, jpeg

PATIENCE = 120.0
# Long enough that a busy machine keeps every heartbeat and every erasure within its time.
EXPIRE, WAIT = 12.0, 6.0
ACCEPTED = gallery.IngestCropsResponse.OUTCOME_ACCEPTED


@dataclass
class Replica:
    """One of them."""

    process: ServiceProcess
    connection: Connection

    def ingest(self, number: int, camera: str = "door", name: str = "") -> str:
        """Store an image, sent again while it is answered RETRY; returns its id."""
        while True:
            answer = self.offer(number, camera, name)
            if answer.outcome != gallery.IngestCropsResponse.OUTCOME_RETRY:
                assert answer.crop_id, answer
                return str(answer.crop_id)
            time.sleep(0.05)

    def offer(self, number: int, camera: str = "door", name: str = "") -> Any:
        """Send an image once."""
        with translated():
            (answer,) = self.connection.gallery.IngestCrops(iter([item(number, camera, name)]))
        return answer

    def found(self, image: bytes, name: str = "") -> list[str]:
        return [match.crop.crop_id for match in self.matches(image, name)]

    def matches(self, image: bytes, name: str = "") -> Any:
        request = search.SearchRequest(gallery=name, image=image, top_k=1000)
        with translated():
            return self.connection.search.Search(request).matches

    def delete(self, crop_id: str, name: str = "") -> list[str]:
        """Returns the replicas that are pending."""
        request = gallery.DeleteCropRequest(gallery=name, crop_id=crop_id)
        with translated():
            return list(self.connection.gallery.DeleteCrop(request).pending_replicas)

    def image(self, crop_id: str) -> bytes:
        request = gallery.GetCropRequest(crop_id=crop_id, include_image=True)
        with translated():
            return bytes(self.connection.gallery.GetCrop(request).image)

    def searchable(self) -> int:
        """Vectors in the index, whatever the catalog says."""
        request = gallery.GetGalleryStatsRequest()
        with translated():
            return int(self.connection.gallery.GetGalleryStats(request).searchable)

    def add_camera(self, camera: str, name: str = "") -> None:
        request = gallery.CreateCameraRequest(gallery=name, camera=Camera(camera_id=camera))
        self.connection.gallery.CreateCamera(request)

    def state(self) -> tuple[int, str]:
        answer = httpx.get(f"http://{self.process.rest}/readyz")
        return answer.status_code, answer.json()["status"]


@dataclass
class Site:
    """A PostgreSQL, a blob store and a ledger folder that replicas share."""

    start_service: Callable[..., AbstractContextManager[ServiceProcess]]
    folder: Path
    url: str
    settings: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def replica(self, name: str, **settings: str) -> Iterator[Replica]:
        environment = {
            "RESIGHT_DATABASE_URL": self.url,
            "RESIGHT_BLOB_URL": f"file://{self.folder}/blobs",
            "RESIGHT_ERASURES_DIR": f"{self.folder}/erasures",
            "RESIGHT_REPLICAS__NAME": name,
            "RESIGHT_REPLICAS__EXPIRE_SECONDS": str(EXPIRE),
            "RESIGHT_REPLICAS__HEARTBEAT_SECONDS": "0.2",
            **settings,
        }
        with (
            self.start_service(self.folder / name, **environment) as process,
            connect(process.grpc) as connection,
        ):
            yield Replica(process, connection)

    def rows(self, statement: Any, **values: Any) -> list[Any]:
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                asked = text(statement) if isinstance(statement, str) else statement
                return list(connection.execute(asked, values))
        finally:
            engine.dispose()

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Nobody reads or writes a table."""
        engine = create_engine(self.url)
        try:
            with engine.begin() as connection:
                connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
                yield
        finally:
            engine.dispose()


def upgraded(start_service: Any, folder: Path, url: str) -> Site:
    environment = os.environ | {"RESIGHT_DATABASE_URL": url}
    done = forked.completed(["db", "upgrade"], environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return Site(start_service, folder, url)


def item(number: int, camera: str, name: str) -> Any:
    return gallery.IngestCropsRequest(
        gallery=name,
        sequence=number,
        image=jpeg(number),
        crop=Crop(camera_id=camera, capture_time=Timestamp(seconds=1_767_225_600 + number)),
    )


def eventually(holds: Callable[[], Any]) -> Any:
    """What ``holds`` returns as soon as it is true; refusals count as not yet."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if value := holds():
                return value
        except (NotFound, Unavailable, AssertionError):
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "not within the time"
        time.sleep(0.01)
