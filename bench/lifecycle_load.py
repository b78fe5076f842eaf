"""Clients of several kinds on the replicas of one gallery, while its models change; every answer is
kept, and judged afterwards by brute force under exactly the version that it names.

Images are noise of 16 x 8 pixels; an encoder is a random matrix, vector = pixels matrix, of unit
length, so what an answer must say is computed here without any of the service's code.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from uuid import UUID

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from resight.bundle import write_bundle
from resight.client.connection import Connection, connect
from resight.crops import Preprocessing
from resight.v1 import bundle_pb2
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Crop

__all__ = ["Judgement", "Load", "encoder_archive", "image", "items"]

HEIGHT, WIDTH, DIMENSION = 16, 8, 32
TOLERANCE = 1e-4
TOP_K = 1000
# Crops on their way in, and deleted ones that an answer had room for.
SLACK = 10
START = 1_767_225_600
_NUMBERS = (1 << 60) - 1


def encoder_archive(output: Path, seed: int) -> Path:
    """A bundle of the encoder of this seed."""
    constants = {"matrix": _matrix(seed).astype(np.float32), "axis": np.array([1])}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["float"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["product"]),
        helper.make_node("ReduceL2", ["product", "axis"], ["norm"], keepdims=1),
        helper.make_node("Div", ["product", "norm"], ["embeddings"]),
    ]
    images, floats = TensorProto.UINT8, TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", images, ["b", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("embeddings", floats, ["b", DIMENSION])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 18)]
    write_bundle(
        output,
        encoder=helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString(),
        preprocessing=Preprocessing(HEIGHT, WIDTH, "bilinear"),
        provenance=bundle_pb2.Provenance(method="bench"),
        model_card="# Random matrix\n",
    )
    return output


def crop_of(number: int) -> str:
    """The id of a number's crop."""
    return str(UUID(int=(1 << 100) + number))


def image(number: int) -> bytes:
    """The image of a number, as PNG: every pixel arrives."""
    stream = io.BytesIO()
    Image.fromarray(_pixels(number)).save(stream, "PNG")
    return stream.getvalue()


@lru_cache(maxsize=100_000)
def _vector(seed: int, number: int) -> NDArray[np.float64]:
    product: NDArray[np.float64] = _pixels(number).reshape(-1).astype(np.float64) @ _matrix(seed)
    vector: NDArray[np.float64] = product / np.linalg.norm(product)
    return vector


def _pixels(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@lru_cache(maxsize=8)
def _matrix(seed: int) -> NDArray[np.float64]:
    rows = HEIGHT * WIDTH * 3
    matrix: NDArray[np.float64] = np.random.default_rng(seed).standard_normal((rows, DIMENSION))
    # Pixels lie around 127.5: without a mean crops look less alike. As the graph holds it.
    centred: NDArray[np.float64] = matrix - matrix.mean(axis=0)
    return centred.astype(np.float32).astype(np.float64)


def items(numbers: Sequence[int]) -> Iterator[gallery.IngestCropsRequest]:
    """The crops of these numbers; a number is its crop's id."""
    for number in numbers:
        crop = Crop(
            crop_id=crop_of(number),
            camera_id="door",
            capture_time=Timestamp(seconds=START + number),
        )
        yield gallery.IngestCropsRequest(sequence=number, image=image(number), crop=crop)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one search said: the numbers of the crops and their scores."""

    replica: int
    query: int
    began: float
    ended: float
    version: str
    numbers: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(slots=True)
class Judgement:
    """What was found wrong; all but ``answers``, ``matches`` and ``retries`` should be 0. While
    there may be more crops than an answer has room for, none is asked for those it lacks.
    """

    answers: int = 0
    matches: int = 0
    mixed: int = 0
    unknown_versions: int = 0
    out_of_order: int = 0
    incomplete: int = 0
    erased: int = 0
    failed: list[str] = field(default_factory=list)
    retries: int = 0


class Load:
    """Clients on each replica: ``searchers`` that search without a pause, one that ingests, and one
    that deletes on the first replica.

    Args:
        targets: host:port of each replica.
        seeds: Seed of each encoder, by its version.
        first: Numbers below are in the gallery already.
        searchers: Searching clients a replica.
        pace: Seconds between two crops of one ingesting client.
    """

    def __init__(
        self,
        targets: Sequence[str],
        seeds: dict[str, int],
        *,
        first: int,
        searchers: int = 2,
        pace: float = 0.02,
    ) -> None:
        self._targets = targets
        self._seeds = seeds
        self._pace = pace
        self._stop = threading.Event()
        self._next = first
        self._lock = threading.Lock()
        self.answers: list[Answer] = []
        # By number: the replica that acknowledged it, and when; when its deletion was begun, ended.
        self.acknowledged: dict[int, tuple[int, float]] = dict.fromkeys(range(first), (-1, 0.0))
        self.deleting: dict[int, float] = {}
        self.deleted: dict[int, float] = {}
        self.failed: list[str] = []
        self.retries = 0
        work: list[tuple[Callable[[Connection, int], None], int]] = []
        for replica in range(len(targets)):
            work += [(self._search, replica)] * searchers + [(self._ingest, replica)]
        work.append((self._delete, 0))
        self._threads = [
            threading.Thread(target=self._client, args=each, daemon=True) for each in work
        ]

    def __enter__(self) -> Load:
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and wait for what is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def judged(self, seeds: dict[str, int] | None = None) -> Judgement:
        """Every answer compared with brute force, under the encoders given instead."""
        known = seeds or self._seeds
        found = Judgement(failed=self.failed, retries=self.retries)
        for answer in self.answers:
            found.answers += 1
            found.matches += len(answer.numbers)
            seed = known.get(answer.version)
            if seed is None:
                found.unknown_versions += 1
                continue
            query = _vector(seed, answer.query)
            rows = np.stack([_vector(seed, int(number)) for number in answer.numbers])
            found.mixed += int((np.abs(rows @ query - answer.scores) > TOLERANCE).sum())
            found.out_of_order += int((np.diff(answer.scores) > 0).sum())
            there = set(answer.numbers.tolist())
            if sum(when < answer.ended for _, when in self.acknowledged.values()) < TOP_K - SLACK:
                found.incomplete += len(self._due(answer) - there)
            found.erased += sum(
                self.deleted.get(number, answer.ended) < answer.began for number in there
            )
        return found

    def slowest(self, replica: int, version: str, since: float, until: float) -> float:
        """How long after a moment the last search began that was answered by another version."""
        late = (
            answer.began - since
            for answer in self.answers
            if answer.replica == replica
            and answer.version != version
            and since < answer.began < until
        )
        return max(late, default=0.0)

    def latencies(self, since: float, until: float) -> NDArray[np.float64]:
        """Seconds of the searches that began in this time."""
        return np.array([
            answer.ended - answer.began for answer in self.answers if since < answer.began < until
        ])  # fmt: skip

    def _due(self, answer: Answer) -> set[int]:
        """What this replica had acknowledged, and nobody was deleting."""
        return {
            number
            for number, (replica, when) in self.acknowledged.items()
            if replica in (-1, answer.replica)
            and when < answer.began
            and self.deleting.get(number, answer.ended + 1) > answer.ended
        }

    def _client(self, work: Callable[[Connection, int], None], replica: int) -> None:
        with connect(self._targets[replica]) as connection:
            while not self._stop.is_set():
                try:
                    work(connection, replica)
                except grpc.RpcError as error:
                    self.failed.append(f"replica {replica}: {error.code()}: {error.details()}")

    def _search(self, connection: Connection, replica: int) -> None:
        query = 10_000_000 + len(self.answers) % 50
        request = search.SearchRequest(image=image(query), top_k=TOP_K)
        began = time.monotonic()
        found = connection.search.Search(request, timeout=60)
        ended = time.monotonic()
        numbers = [UUID(match.crop.crop_id).int & _NUMBERS for match in found.matches]
        scores = np.array([match.score for match in found.matches], np.float64)
        said = np.array(numbers, np.int64), scores
        self.answers.append(Answer(replica, query, began, ended, found.model_version, *said))

    def _ingest(self, connection: Connection, replica: int) -> None:
        with self._lock:
            number, self._next = self._next, self._next + 1
        outcomes = gallery.IngestCropsResponse
        while True:
            (answer,) = connection.gallery.IngestCrops(items([number]), timeout=60)
            if answer.outcome == outcomes.OUTCOME_RETRY:
                self.retries += 1
                time.sleep(0.05)
            else:
                break
        if answer.outcome == outcomes.OUTCOME_ACCEPTED:
            self.acknowledged[number] = replica, time.monotonic()
        else:
            self.failed.append(f"crop {number}: {answer.reason}: {answer.message}")
        self._stop.wait(self._pace)

    def _delete(self, connection: Connection, replica: int) -> None:
        del replica
        with suppress(IndexError):
            number = sorted(self.acknowledged.keys() - self.deleting.keys())[::7][0]
            self.deleting[number] = time.monotonic()
            wanted = gallery.DeleteCropRequest(crop_id=crop_of(number))
            pending = connection.gallery.DeleteCrop(wanted, timeout=60).pending_replicas
            if not pending:
                self.deleted[number] = time.monotonic()
        self._stop.wait(5 * self._pace)
