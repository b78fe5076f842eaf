"""Streaming ingest against a bare loop of the same work, and searches while it runs.

    python -m bench ingest-stream --onnx osnet_x0_25_msmt17.onnx --crops market1501/query

The bare loop is what a crop costs without a service: decode + resize, ONNX Runtime in batches, the
image written and flushed, and rows with vectors committed to SQLite with every commit flushed, all
one after the other in one process; threads and batch sizes are tried and the fastest counts.

The client's own CPU time is excluded by giving it cores of its own: service and bare loop run on
the same ones (``--client-cores`` of those allowed go to the clients, the rest to either of them),
one at a time and in turns. On a busy machine cores are not worth the same from one minute to the
next, so the CPU time of a crop stands beside every rate; `cpu_ratio` (bare over service) is what
contention cannot bend. The client's CPU is reported, too.

Searches by image arrive at a fixed rate, whether earlier ones are answered or not, and are timed
from when they were due: first at an idle service, then while crops stream in at full speed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf.timestamp_pb2 import Timestamp

from bench.serving import cpu_seconds, import_bundle, own_cpu, pinned, sample_images, serving
from resight.bundle import open_bundle
from resight.client.connection import connect
from resight.crops import prepare
from resight.durable import flush_folder
from resight.v1.gallery_service_pb2 import (
    CreateCameraRequest,
    IngestCropsRequest,
    IngestCropsResponse,
)
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.search_service_pb2_grpc import SearchServiceStub
from resight.v1.types_pb2 import Camera, Crop

IMAGES = 512
BATCHES = (1, 8, 16)
START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
Figures = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison and print one JSON object."""
    arguments = _arguments(argv)
    images = sample_images(arguments.crops, IMAGES)
    if arguments.part == "bare":
        print(json.dumps(_bare(arguments, images)))
    elif arguments.part == "ingest":
        print(json.dumps(_ingest(arguments, images)))
    elif arguments.part == "search":
        print(json.dumps(asyncio.run(_search(arguments, images))))
    else:
        print(json.dumps(_compare(arguments), indent=2))


def _compare(arguments: argparse.Namespace) -> Figures:
    cores = sorted(os.sched_getaffinity(0))
    shared = cores[: max(1, len(cores) - arguments.client_cores)]
    apart = cores[len(shared) :] or cores
    bare: list[Figures] = []
    ingest: list[Figures] = []
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        bundle = arguments.bundle or import_bundle(arguments.onnx, Path(folder))
        told = ["--bundle", str(bundle), "--work", folder]
        with pinned(shared):
            best = max(
                (
                    _part("bare", arguments, *told, "--threads", str(n), "--batch", str(batch),
                          "--seconds", "2")
                    for n in range(1, len(shared) + 1)
                    for batch in BATCHES
                ),
                key=lambda figures: float(figures["rate"]),
            )  # fmt: skip
        chosen = ["--threads", str(best["threads"]), "--batch", str(best["batch"])]
        with pinned(shared):
            service = serving(bundle, Path(folder) / "data", arguments.serve_option)
            target, pid = service.__enter__()
        try:
            _camera(target)
            number = 0
            for turn in range(-1, arguments.rounds):
                if turn >= 0:
                    with pinned(shared):
                        bare.append(_part("bare", arguments, *told, *chosen))
                before = cpu_seconds(pid)
                with pinned(apart):
                    figures = _part("ingest", arguments, "--target", target, "--first", str(number))
                number += figures["sent"]
                figures["cpu_ms"] = 1000 * (cpu_seconds(pid) - before) / figures["sent"]
                if turn >= 0:  # the one before warms up and gives searches something to find
                    ingest.append(figures)
            with pinned(apart):
                idle = _part("search", arguments, "--target", target)
                busy, beside = _beside(arguments, target, number)
        finally:
            service.__exit__(None, None, None)
    rate = {name: statistics.median(f["rate"] for f in found) for name, found in
            (("bare", bare), ("service", ingest))}  # fmt: skip
    cpu = {name: statistics.median(f["cpu_ms"] for f in found) for name, found in
           (("bare", bare), ("service", ingest))}  # fmt: skip
    return {
        "cores": {"service_or_bare": shared, "clients": apart},
        "bare_threads_and_batch": [best["threads"], best["batch"]],
        "crops_per_second": {name: round(value, 1) for name, value in rate.items()},
        "rounds": {
            "bare": [round(f["rate"], 1) for f in bare],
            "service": [round(f["rate"], 1) for f in ingest],
        },
        "retried": sum(f["outcomes"].get("RETRY", 0) for f in ingest),
        "cpu_ms_per_crop": {name: round(value, 2) for name, value in cpu.items()}
        | {"client": round(statistics.median(f["client_cpu_ms"] for f in ingest), 2)},
        "ratio_to_bare": round(rate["service"] / rate["bare"], 3),
        "cpu_ratio": round(cpu["bare"] / cpu["service"], 3),
        "gallery": number,
        "searches": {"a_second": arguments.search_rate, "idle": idle, "while_ingesting": busy},
        "crops_per_second_beside_searches": round(beside["rate"], 1),
        "p50_ratio": round(busy["p50_ms"] / idle["p50_ms"], 2),
        "p99_ratio": round(busy["p99_ms"] / idle["p99_ms"], 2),
    }


def _beside(arguments: argparse.Namespace, target: str, number: int) -> tuple[Figures, Figures]:
    """Searches and the ingest beside them, which begins before and ends after."""
    found: list[Figures] = []
    longer = str(arguments.seconds * 1.2 + 6)
    ingest = threading.Thread(
        target=lambda: found.append(
            _part("ingest", arguments, "--target", target, "--first", str(number),
                  "--seconds", longer)
        )
    )  # fmt: skip
    ingest.start()
    time.sleep(2)
    searches = _part("search", arguments, "--target", target)
    ingest.join()
    return searches, found[0]


def _bare(arguments: argparse.Namespace, images: list[bytes]) -> Figures:
    bundle = open_bundle(arguments.bundle, golden=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    session = onnxruntime.InferenceSession(str(bundle.encoder_path), options)
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        blobs = Path(folder) / "blobs"
        blobs.mkdir()
        database = sqlite3.connect(Path(folder) / "bare.sqlite", isolation_level=None)
        for pragma in ("journal_mode = WAL", "synchronous = FULL"):
            database.execute(f"PRAGMA {pragma}")
        database.execute("CREATE TABLE crops (id INTEGER PRIMARY KEY, time, sha256, vector BLOB)")
        done, cpu, begun = 0, own_cpu(), time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < arguments.seconds:
            chosen = [images[(done + n) % len(images)] for n in range(arguments.batch)]
            batch = np.stack([prepare(image, bundle.preprocessing) for image in chosen])
            (vectors,) = session.run(["embeddings"], {"images": batch})
            _store(database, blobs, done, chosen, vectors)
            done += arguments.batch
        cpu = own_cpu() - cpu
        database.close()
    return {
        "threads": arguments.threads,
        "batch": arguments.batch,
        "rate": done / elapsed,
        "cpu_ms": 1000 * cpu / done,
    }


def _store(
    database: sqlite3.Connection, blobs: Path, first: int, images: list[bytes], vectors: Any
) -> None:
    for number, image in enumerate(images, first):
        with (blobs / str(number)).open("wb") as file:
            file.write(image)
            file.flush()
            os.fsync(file.fileno())
    flush_folder(blobs)
    database.execute("BEGIN IMMEDIATE")
    database.executemany(
        "INSERT INTO crops VALUES (?, ?, ?, ?)",
        [
            (number, START + number, hashlib.sha256(image).digest(), vector.tobytes())
            for number, (image, vector) in enumerate(zip(images, vectors, strict=True), first)
        ],
    )
    database.execute("COMMIT")


def _ingest(arguments: argparse.Namespace, images: list[bytes]) -> Figures:
    """Streams that are never without something to send; rate between first and last answer."""
    outcomes: Counter[str] = Counter()
    answered: list[float] = []
    sent = 0
    with connect(arguments.target) as connection:
        cpu, begun = own_cpu(), time.perf_counter()
        lock = threading.Lock()

        def requests() -> Iterator[IngestCropsRequest]:
            nonlocal sent
            while time.perf_counter() - begun < arguments.seconds:
                with lock:
                    number = arguments.first + sent
                    sent += 1
                yield IngestCropsRequest(
                    sequence=number,
                    # Another time makes it another crop.
                    crop=Crop(camera_id="door", capture_time=Timestamp(seconds=START + number)),
                    image=images[number % len(images)],
                )

        def stream() -> None:
            for answer in connection.gallery.IngestCrops(requests()):
                name = IngestCropsResponse.Outcome.Name(answer.outcome).removeprefix("OUTCOME_")
                outcomes[name] += 1
                if name == "ACCEPTED":
                    answered.append(time.perf_counter())

        streams = [threading.Thread(target=stream) for _ in range(arguments.streams)]
        for thread in streams:
            thread.start()
        for thread in streams:
            thread.join()
        cpu = own_cpu() - cpu
    if set(outcomes) - {"ACCEPTED", "RETRY"}:
        raise RuntimeError(f"unexpected answers: {dict(outcomes)}")
    return {
        "sent": sent,
        "outcomes": dict(outcomes),
        "rate": (len(answered) - 1) / (max(answered) - min(answered)),
        "client_cpu_ms": 1000 * cpu / sent,
    }


async def _search(arguments: argparse.Namespace, images: list[bytes]) -> Figures:
    """Searches at a fixed rate, each timed from the moment it was due."""
    latencies: list[float] = []
    failed: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(arguments.target) as channel:
        stub = SearchServiceStub(channel)
        requests = [SearchRequest(image=image, top_k=10) for image in images[:64]]
        for request in requests[:8]:
            await stub.Search(request)

        async def one(number: int, due: float) -> None:
            try:
                await stub.Search(requests[number % len(requests)])
            except grpc.aio.AioRpcError as error:
                failed[error.code().name] += 1
            else:
                latencies.append(time.perf_counter() - due)

        begun = time.perf_counter()
        tasks = []
        for number in range(round(arguments.search_rate * arguments.seconds)):
            due = begun + number / arguments.search_rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(number, due)))
        await asyncio.gather(*tasks)
    cuts = statistics.quantiles(latencies, n=100)
    return {
        "answered": len(latencies),
        "failed": dict(failed),
        "p50_ms": round(1000 * cuts[49], 1),
        "p95_ms": round(1000 * cuts[94], 1),
        "p99_ms": round(1000 * cuts[98], 1),
    }


def _camera(target: str) -> None:
    with connect(target) as connection:
        connection.gallery.CreateCamera(CreateCameraRequest(camera=Camera(camera_id="door")))


def _part(part: str, arguments: argparse.Namespace, *options: str) -> Figures:
    command = [
        sys.executable, "-m", "bench.ingest_stream", "--part", part,
        "--crops", str(arguments.crops), "--seconds", str(arguments.seconds),
        "--streams", str(arguments.streams), "--search-rate", str(arguments.search_rate), *options,
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    answer: Figures = json.loads(done.stdout)
    return answer


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path, help="an encoder of 256 x 128, imported first")
    parser.add_argument("--bundle", type=Path, help="instead of --onnx")
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--search-rate", type=float, default=10.0)
    parser.add_argument("--client-cores", type=int, default=1)
    parser.add_argument("--work", type=Path, help="where data is written; the default: temporary")
    parser.add_argument("--serve-option", action="append", default=[])
    for name in ("--part", "--target"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    for name in ("--threads", "--batch", "--first"):
        parser.add_argument(name, type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
