"""Throughput of single-image gRPC searches against a bare loop of the same work.

    python -m bench service --onnx osnet_x0_25_msmt17.onnx --crops market1501/bounding_box_train

The bare loop is what the work costs without a service: decode + resize, ONNX Runtime and an exact
faiss search of the same gallery, one after the other, in one process that has every core; batch
sizes and thread counts are tried and the fastest counts. Beside it stands the same loop run in as
many threads as there are cores, an upper bound for anything that does this work. The service is a
real `resight serve` process; its client is another process on the same cores, whose CPU is
reported apart. All take turns, so that a busy machine is busy for each of them; even so the kernel
gives more of a busy machine to a process with more threads, so CPU time per search stands beside
every rate, and `cpu_ratio` (bare over service and client together) is what contention cannot bend.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import grpc
import numpy as np
import onnxruntime

from bench.serving import cpu_seconds, import_bundle, own_cpu, sample_images, serving
from resight.bundle import open_bundle
from resight.client.capture_times import CaptureTimeSource, with_capture_times
from resight.client.connection import connect
from resight.client.ingest import Uploader
from resight.crops import open_source, prepare
from resight.v1.gallery_service_pb2 import CreateCameraRequest
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.search_service_pb2_grpc import SearchServiceStub
from resight.v1.types_pb2 import Camera

TOP_K = 10
BARE_CHOICES = [(threads, batch) for threads in (1, 2) for batch in (1, 8)]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison and print one JSON object."""
    arguments = _arguments(argv)
    if arguments.drive:
        asyncio.run(_closed_loop(arguments.drive, sample_images(arguments.crops, 512), arguments))
        return
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle or import_bundle(arguments.onnx, Path(folder))
        images = sample_images(arguments.crops, 512)
        with serving(bundle, Path(folder) / "data", arguments.serve_option) as (target, pid):
            vectors = _fill(target, arguments.crops, arguments.gallery)
            report = _rounds(arguments, bundle, images, target, pid, vectors)
    print(json.dumps(report, indent=2))


def _rounds(
    arguments: argparse.Namespace,
    bundle: Path,
    images: list[bytes],
    target: str,
    pid: int,
    rows: int,
) -> dict[str, Any]:
    loops = {choice: BareLoop(bundle, rows, *choice) for choice in BARE_CHOICES}
    best = max(loops, key=lambda choice: loops[choice].rate(images, 2.0))
    cores = len(os.sched_getaffinity(0))
    parallel = [BareLoop(bundle, rows, 1, 1) for _ in range(cores)]
    results: dict[str, list[float]] = {"bare": [], "parallel": [], "service": []}
    clients, servers, bare_cpu = [], [], []
    for _ in range(arguments.rounds):
        before = own_cpu()
        results["bare"].append(loops[best].rate(images, arguments.seconds))
        bare_cpu.append((own_cpu() - before) / (results["bare"][-1] * arguments.seconds))
        results["parallel"].append(_together(parallel, images, arguments.seconds))
        before = cpu_seconds(pid)
        answer = _drive(target, arguments)
        servers.append((cpu_seconds(pid) - before) / answer["searches"])
        clients.append(answer["cpu_seconds"] / answer["searches"])
        results["service"].append(answer["rate"])
    cpu = {
        "bare": statistics.median(bare_cpu),
        "service": statistics.median(servers),
        "client": statistics.median(clients),
    }
    rate = {name: statistics.median(values) for name, values in results.items()}
    return {
        "cores": cores,
        "gallery": rows,
        "concurrency": arguments.concurrency,
        "bare_threads_and_batch": best,
        "searches_per_second": {name: round(value, 1) for name, value in rate.items()},
        "rounds": {name: [round(v, 1) for v in values] for name, values in results.items()},
        "cpu_ms_per_search": {name: round(1000 * value, 2) for name, value in cpu.items()},
        "p50_ms": answer["p50_ms"],
        "p99_ms": answer["p99_ms"],
        "cpu_ratio": round(cpu["bare"] / (cpu["service"] + cpu["client"]), 3),
        "ratio_to_bare": round(rate["service"] / rate["bare"], 3),
        "ratio_to_parallel": round(rate["service"] / rate["parallel"], 3),
    }


class BareLoop:
    """Decode, resize, encode and search, with nothing around them."""

    def __init__(self, bundle: Path, rows: int, threads: int, batch: int) -> None:
        opened = open_bundle(bundle, golden=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(opened.encoder_path), options)
        self._preprocessing = opened.preprocessing
        self._batch = batch
        self._threads = threads
        vectors = np.random.default_rng(0).standard_normal((rows, opened.dimension), np.float32)
        faiss.normalize_L2(vectors)
        self._index = faiss.IndexFlatIP(opened.dimension)
        self._index.add(vectors)

    def rate(self, images: list[bytes], seconds: float) -> float:
        """Searches a second."""
        faiss.omp_set_num_threads(self._threads)
        done, begun = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begun) < seconds:
            chosen = [images[(done + n) % len(images)] for n in range(self._batch)]
            batch = np.stack([prepare(image, self._preprocessing) for image in chosen])
            (vectors,) = self._session.run(["embeddings"], {"images": batch})
            self._index.search(vectors, TOP_K)
            done += self._batch
        return done / elapsed


def _together(loops: list[BareLoop], images: list[bytes], seconds: float) -> float:
    rates: list[float] = []
    threads = [
        threading.Thread(target=lambda loop=loop: rates.append(loop.rate(images, seconds)))
        for loop in loops
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def _drive(target: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "bench.service", "--drive", target,
        "--crops", str(arguments.crops), "--seconds", str(arguments.seconds),
        "--concurrency", str(arguments.concurrency),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def _closed_loop(target: str, images: list[bytes], arguments: argparse.Namespace) -> None:
    latencies: list[float] = []
    async with grpc.aio.insecure_channel(target) as channel:
        stub = SearchServiceStub(channel)
        requests = [SearchRequest(image=image, top_k=TOP_K) for image in images]
        await asyncio.gather(*(stub.Search(request) for request in requests[:16]))
        cpu, begun = own_cpu(), time.perf_counter()

        async def caller(offset: int) -> None:
            n = offset
            while time.perf_counter() - begun < arguments.seconds:
                sent = time.perf_counter()
                await stub.Search(requests[n % len(requests)])
                latencies.append(time.perf_counter() - sent)
                n += arguments.concurrency

        await asyncio.gather(*(caller(n) for n in range(arguments.concurrency)))
        elapsed = time.perf_counter() - begun
    cuts = statistics.quantiles(latencies, n=100)
    answer = {
        "searches": len(latencies),
        "rate": len(latencies) / elapsed,
        "cpu_seconds": own_cpu() - cpu,
        "p50_ms": round(1000 * cuts[49], 1),
        "p99_ms": round(1000 * cuts[98], 1),
    }
    print(json.dumps(answer))


def _fill(target: str, crops: Path, count: int) -> int:
    found = open_source(crops).scan()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    refs = with_capture_times(found.crops[:count], source=CaptureTimeSource.FRAME, start=start)
    with connect(target) as connection:
        for camera in found.cameras:
            connection.gallery.CreateCamera(CreateCameraRequest(camera=Camera(camera_id=camera)))
        report = Uploader(connection.gallery, gallery="").send(refs)
    print(f"gallery: {report.accepted} accepted, {report.duplicate} duplicates", file=sys.stderr)
    return report.accepted


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--crops", type=Path, required=True)
    parser.add_argument("--gallery", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--serve-option", action="append", default=[])
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
