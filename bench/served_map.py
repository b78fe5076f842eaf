"""mAP from a running service's own answers, beside the offline one.

Starts `resight serve` with a bundle, streams a gallery folder in over gRPC, asks for every query
image with the full ranking, scores the answers by the Market-1501 protocol with a literal loop of
its own, and prints both figures, made from the same queries, and how far apart they are::

    python -m bench served_map --bundle B --query DIR --gallery DIR [--limit-queries N]

File names must be in the style of Market-1501. Junk (identity -1) is left out of the gallery, as
offline evaluation does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.machine import describe
from resight.client.connection import Connection, connect
from resight.v1.gallery_service_pb2 import (
    CreateCameraRequest,
    IngestCropsRequest,
    IngestCropsResponse,
)
from resight.v1.search_service_pb2 import SearchRequest, SearchResponse
from resight.v1.types_pb2 import Camera, Crop

_NAME = re.compile(r"(-?\d+)_c(\d+)")
_START = datetime(2026, 1, 1, tzinfo=UTC)
_JUNK = -1


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench served_map", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--query", type=Path, required=True)
    parser.add_argument("--gallery", type=Path, required=True)
    parser.add_argument("--limit-queries", type=int, default=None, metavar="N", help="the first N")
    options = parser.parse_args(argv)

    queries = sorted(options.query.glob("*.jpg"))[: options.limit_queries]
    gallery = [
        path for path in sorted(options.gallery.glob("*.jpg")) if _who_where(path)[0] != _JUNK
    ]
    with tempfile.TemporaryDirectory() as data:
        process, target = _serve(options.bundle, Path(data))
        try:
            with connect(target) as connection:
                ingest_s, accepted = _ingest(connection, gallery)
                search_s, served = _score(connection, queries, gallery)
        finally:
            process.terminate()
            process.wait(timeout=60)
    report = {
        "machine": describe(),
        "gallery": len(gallery),
        "accepted": accepted,
        "ingest_crops_per_second": round(accepted / ingest_s, 1),
        "queries": len(queries),
        "queries_per_second_full_ranking": round(len(queries) / search_s, 1),
        "served": served,
    }
    offline = _offline(options.bundle, queries, options.gallery)
    apart = {key: abs(served[key] - offline[key]) for key in ("map", "rank1")}
    report |= {"offline": offline, "difference": apart, "largest_difference": max(apart.values())}
    print(json.dumps(report, indent=2))
    return 0


def _who_where(path: Path) -> tuple[int, str]:
    match = _NAME.match(path.name)
    if match is None:
        raise SystemExit(f"{path}: not a name in the style of Market-1501")
    return int(match[1]), match[2]


def _serve(bundle: Path, data: Path) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "resight", "serve", "--bundle", str(bundle), "--data", str(data),
         "--grpc-port", "0", "--rest-port", "0"],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "RESIGHT_LIMITS__MAX_TOP_K": "10000"},
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"grpc=(\S+)", line)
    if found is None:
        raise SystemExit(f"the service did not start: {line!r}")
    return process, found[1]


def _crop_id(path: Path) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, path.name))


def _ingest(connection: Connection, gallery: Sequence[Path]) -> tuple[float, int]:
    for camera in sorted({_who_where(path)[1] for path in gallery}):
        connection.gallery.CreateCamera(CreateCameraRequest(camera=Camera(camera_id=camera)))

    def requests() -> Iterator[IngestCropsRequest]:
        for number, path in enumerate(gallery):
            crop = Crop(crop_id=_crop_id(path), camera_id=_who_where(path)[1])
            crop.capture_time.FromDatetime(_START + timedelta(seconds=number))
            yield IngestCropsRequest(sequence=number, crop=crop, image=path.read_bytes())

    start = time.perf_counter()
    outcomes = [answer.outcome for answer in connection.gallery.IngestCrops(requests())]
    return time.perf_counter() - start, outcomes.count(IngestCropsResponse.OUTCOME_ACCEPTED)


def _score(
    connection: Connection, queries: Sequence[Path], gallery: Sequence[Path]
) -> tuple[float, dict[str, float]]:
    names = {_crop_id(path): _who_where(path) for path in gallery}

    def ask(path: Path) -> SearchResponse:
        return connection.search.Search(
            SearchRequest(image=path.read_bytes(), top_k=len(gallery)), timeout=120
        )

    start = time.perf_counter()
    precisions, first = [], 0
    with ThreadPoolExecutor(4) as pool:
        for path, answer in zip(queries, pool.map(ask, queries), strict=True):
            who, where = _who_where(path)
            ranked = [names[match.crop.crop_id] for match in answer.matches]
            if len(ranked) != len(gallery):
                raise SystemExit(f"{path.name}: {len(ranked)} of {len(gallery)} crops ranked")
            hits = [it[0] == who for it in ranked if it != (who, where)]
            if not any(hits):
                continue
            found, total = 0, 0.0
            for rank, hit in enumerate(hits, start=1):
                if hit:
                    found += 1
                    total += found / rank
            precisions.append(total / found)
            first += hits[0]
    seconds = time.perf_counter() - start
    scores = {
        "map": sum(precisions) / len(precisions),
        "rank1": first / len(precisions),
        "queries": len(precisions),
    }
    return seconds, scores


def _offline(bundle: Path, queries: Sequence[Path], gallery: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as chosen:
        for path in queries:
            shutil.copy(path, chosen)
        done = subprocess.run(
            [sys.executable, "-m", "resight", "adapt", "evaluate", "--bundle", str(bundle),
             "--query", chosen, "--gallery", str(gallery), "--json"],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    scores = json.loads(done.stdout)
    return {key: scores[key] for key in ("map", "rank1", "queries", "gallery")}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
