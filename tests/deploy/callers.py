"""Callers who balance over a Deployment's endpoints, retry nothing, and count what failed."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.timestamp_pb2 import Timestamp

from resight.v1.gallery_service_pb2 import IngestCropsRequest, IngestCropsResponse
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.search_service_pb2_grpc import SearchServiceStub
from resight.v1.types_pb2 import Crop
from tests.deploy.pods import Deployment, Pod

PAUSE = 0.02
ITEMS = 4
START = 1_767_225_600


class Callers:
    """Searches and ingest over gRPC and REST, each on a thread of its own, request by request.

    Args:
        deployment: Whose endpoints are asked in turn.
        image: An image by its number.
        headers: Sent with every request.
        ca: Over TLS, of a service whose certificate this one has issued; None: in plaintext.
    """

    def __init__(
        self,
        deployment: Deployment,
        image: Callable[[int], bytes],
        headers: dict[str, str],
        ca: Path | None = None,
    ) -> None:
        self._deployment = deployment
        self._image = image
        self._headers = headers
        self._ca = ca
        self._stop = threading.Event()
        self._numbers = count(1000)
        self._lock = threading.Lock()
        self.sent: Counter[tuple[str, str]] = Counter()
        self.failures: list[str] = []
        self.acknowledged: list[str] = []

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Requests go on throughout."""
        threads = [
            threading.Thread(target=self._keep_on, args=(kind, make))
            for kind, make in (
                ("search grpc", self._grpc_searches),
                ("search grpc", self._grpc_searches),
                ("search rest", self._rest_searches),
                ("ingest grpc", self._grpc_ingest),
                ("ingest rest", self._rest_ingest),
            )
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def total(self) -> int:
        return sum(self.sent.values())

    def settle(self, seconds: float = 1.5) -> None:
        """Let the callers go on for a while as things are."""
        before = self.total()
        end = time.monotonic() + 60
        time.sleep(seconds)
        while self.total() < before + 20:
            assert time.monotonic() < end, "nobody calls any more"
            time.sleep(0.05)

    def _keep_on(self, kind: str, make: Callable[[], Callable[[Pod], None]]) -> None:
        call = make()
        turn = count()
        while not self._stop.is_set():
            there = self._deployment.endpoints()
            if not there:
                self._failed(kind, "no endpoint")
                time.sleep(0.2)
                continue
            pod = there[next(turn) % len(there)]
            try:
                call(pod)
            except (grpc.RpcError, httpx.HTTPError, AssertionError) as error:
                self._failed(f"{kind} {pod.name}", f"{type(error).__name__} {error}")
            else:
                with self._lock:
                    self.sent[kind, pod.name] += 1
            time.sleep(PAUSE)

    def _failed(self, kind: str, why: str) -> None:
        with self._lock:
            self.failures.append(f"{kind}: {why}")

    def _channels(self) -> Callable[[Pod], grpc.Channel]:
        channels: dict[str, grpc.Channel] = {}

        def channel(pod: Pod) -> grpc.Channel:
            if pod.name not in channels:
                target = f"127.0.0.1:{pod.ports['grpc']}"
                if self._ca is None:
                    channels[pod.name] = grpc.insecure_channel(target)
                else:
                    trust = grpc.ssl_channel_credentials(self._ca.read_bytes())
                    channels[pod.name] = grpc.secure_channel(target, trust)
            return channels[pod.name]

        return channel

    def _client(self) -> httpx.Client:
        verify = True if self._ca is None else ssl.create_default_context(cafile=str(self._ca))
        return httpx.Client(timeout=60, headers=self._headers, verify=verify)

    def _url(self, pod: Pod, path: str) -> str:
        scheme = "http" if self._ca is None else "https"
        return f"{scheme}://127.0.0.1:{pod.ports['rest']}/v1/galleries/default/{path}"

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self._headers.items())

    def _grpc_searches(self) -> Callable[[Pod], None]:
        channel, numbers = self._channels(), count()

        def call(pod: Pod) -> None:
            request = SearchRequest(image=self._image(next(numbers) % 50), top_k=10)
            answer = SearchServiceStub(channel(pod)).Search(
                request, timeout=60, metadata=self._metadata()
            )
            assert answer.model_version

        return call

    def _rest_searches(self) -> Callable[[Pod], None]:
        client, numbers = self._client(), count()

        def call(pod: Pod) -> None:
            answer = client.post(
                self._url(pod, "search"),
                files={"image": ("query.jpg", self._image(next(numbers) % 50))},
                data={"top_k": "10"},
            )
            assert answer.status_code == 200, answer.text

        return call

    def _grpc_ingest(self) -> Callable[[Pod], None]:
        channel = self._channels()

        def call(pod: Pod) -> None:
            items = [self._item(next(self._numbers)) for _ in range(ITEMS)]
            answers = list(
                GalleryServiceStub(channel(pod)).IngestCrops(
                    iter(items), timeout=60, metadata=self._metadata()
                )
            )
            self._note(
                [a.crop_id for a in answers if a.outcome == IngestCropsResponse.OUTCOME_ACCEPTED]
            )
            assert len(answers) == ITEMS, answers
            outcomes = {(answer.outcome, answer.reason) for answer in answers}
            assert outcomes == {(IngestCropsResponse.OUTCOME_ACCEPTED, "")}, outcomes

        return call

    def _rest_ingest(self) -> Callable[[Pod], None]:
        client = self._client()

        def call(pod: Pod) -> None:
            number = next(self._numbers)
            answer = client.post(
                self._url(pod, "crops"),
                files={"image": ("crop.jpg", self._image(number))},
                data={"camera_id": "door", "capture_time": _written(number)},
            )
            assert answer.status_code == 201, answer.text
            self._note([answer.json()["crop_id"]])

        return call

    def _item(self, number: int) -> Any:
        crop = Crop(camera_id="door", capture_time=Timestamp(seconds=START + number))
        return IngestCropsRequest(sequence=number, image=self._image(number), crop=crop)

    def _note(self, crop_ids: list[str]) -> None:
        with self._lock:
            self.acknowledged.extend(crop_ids)


def _written(number: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START + number))
