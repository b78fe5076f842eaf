"""Clients that ingest, delete and search at the same time until the service dies under them."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import Connection
from resight.v1 import gallery_service_pb2, search_service_pb2
from resight.v1.types_pb2 import Camera, Crop
from tests.faults.evidence import Site, crop_id_of

CAMERAS = ("door", "hall", "yard")
IN_FLIGHT = 24
ACCEPTED = (
    gallery_service_pb2.IngestCropsResponse.OUTCOME_ACCEPTED,
    gallery_service_pb2.IngestCropsResponse.OUTCOME_DUPLICATE,
)


class Load:
    """Two streams of crops, one client that deletes and one that searches.

    Args:
        site: Told what is sent and answered.
        connection: To the service.
        numbers: Of the crops to send, never the same twice.
        seed: Decides what is deleted and searched.
    """

    def __init__(
        self, site: Site, connection: Connection, numbers: Iterator[int], seed: int
    ) -> None:
        self._site = site
        self._connection = connection
        self._numbers = numbers
        self._seed = seed
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(work, place), daemon=True)
            for place, work in enumerate((self._ingest, self._ingest, self._delete, self._search))
        ]
        self.searches = 0
        self.refused = 0
        self.wrong: list[str] = []
        self.broken: list[BaseException] = []

    def register_cameras(self) -> None:
        """Before the first load."""
        for name in CAMERAS:
            self._connection.gallery.CreateCamera(
                gallery_service_pb2.CreateCameraRequest(camera=Camera(camera_id=name))
            )

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop, or notice that the service is gone; raises what went wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive(), "a client hangs"
        assert not self.wrong, self.wrong[:3]
        for error in self.broken:
            raise error

    def _run(self, work: Callable[[random.Random], None], place: int) -> None:
        try:
            work(random.Random(self._seed * 10 + place))
        except grpc.RpcError:
            pass
        except BaseException as error:  # shown by the test, not lost with the thread
            self.broken.append(error)

    def _ingest(self, _: random.Random) -> None:
        told, room = self._site.told, threading.Semaphore(IN_FLIGHT)
        over = threading.Event()

        def items() -> Iterator[gallery_service_pb2.IngestCropsRequest]:
            while not self._stop.is_set() and not over.is_set():
                if not room.acquire(timeout=0.1):
                    continue
                number = next(self._numbers)
                with told.lock:
                    told.sent.add(number)
                yield request_of(self._site, number)

        try:
            for answer in self._connection.gallery.IngestCrops(items()):
                room.release()
                if answer.outcome in ACCEPTED:
                    with told.lock:
                        told.stored.add(answer.sequence)
                elif answer.outcome == gallery_service_pb2.IngestCropsResponse.OUTCOME_RETRY:
                    self.refused += 1
                else:
                    self.wrong.append(f"crop {answer.sequence}: {answer.reason} {answer.message}")
        finally:
            over.set()

    def _delete(self, chance: random.Random) -> None:
        told = self._site.told
        while not self._stop.is_set():
            time.sleep(0.005)
            present = told.lasting
            if len(present) < 5:
                continue
            number = chance.choice(sorted(present))
            with told.lock:
                told.deleting.add(number)
            self._connection.gallery.DeleteCrop(
                gallery_service_pb2.DeleteCropRequest(crop_id=crop_id_of(number)), timeout=120
            )
            with told.lock:
                told.deleted.add(number)

    def _search(self, chance: random.Random) -> None:
        told = self._site.told
        while not self._stop.is_set():
            present = told.lasting
            if not present:
                time.sleep(0.01)
                continue
            with told.lock:
                gone = {crop_id_of(number) for number in told.deleted}
            number = chance.choice(sorted(present))
            answer = self._connection.search.Search(
                search_service_pb2.SearchRequest(image=self._site.image_of(number), top_k=20),
                timeout=120,
            )
            self.searches += 1
            found = [match.crop.crop_id for match in answer.matches]
            if gone.intersection(found):
                self.wrong.append(f"a deleted crop was found: {gone.intersection(found)}")
            # It may have been deleted since; then it need not be there.
            if number in told.lasting and (not found or found[0] != crop_id_of(number)):
                self.wrong.append(f"crop {number} is acknowledged and not found first")


def request_of(site: Site, number: int) -> gallery_service_pb2.IngestCropsRequest:
    """The crop of a number; its camera, time and track follow from it."""
    return gallery_service_pb2.IngestCropsRequest(
        sequence=number,
        image=site.image_of(number),
        crop=Crop(
            crop_id=crop_id_of(number),
            camera_id=CAMERAS[number % len(CAMERAS)],
            capture_time=Timestamp(seconds=1_767_225_600 + number % 86_400),
            track_id=f"track {number // 7}",
            attributes={"coat": ("red", "blue")[number % 2]},
        ),
    )


class Numbers:
    """1, 2, 3 and so on, each once, for several threads."""

    def __init__(self) -> None:
        self._counting, self._lock = itertools.count(1), threading.Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        with self._lock:
            return next(self._counting)
