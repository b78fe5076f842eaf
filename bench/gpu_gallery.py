"""The GPU gallery: half-precision scans beside the time that the memory alone takes.

    python -m bench gpu_gallery [--rows 1000000] [--dimension 512] [--bandwidth GB/s] [--json]

Rows lie on the device in slabs of a million, as the gallery lays them. For batches of 1, 16 and 64
queries, without a bitmap, with half of the rows and with 1 % of them: milliseconds of a scan of
all slabs, and their ratio to rows x dimension x 2 bytes at the card's bandwidth, below which no
exact scan can be. ``--whole`` also builds the index around it (4 bytes a value of host memory) and
holds its answers to the CPU's. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.gallery import filled, unit_rows
from resight.errors import FailedPrecondition
from service.domain.ports import RowFilter
from service.gallery.index import SEGMENT_ROWS, SegmentedIndex
from service.gpu.device import Device
from service.gpu.faiss_scanner import FaissScanner
from service.gpu.index import GROUP, GpuIndex
from service.gpu.scanner import Scanner

BATCHES = (1, 16, 64)
SHARES = {"plain": None, "half": 0.5, "one_percent": 0.01}
TOP_K = 100
ROUNDS = 20

# GB/s by their makers' data sheets.
BANDWIDTHS = {
    "H200": 4800.0,
    "H100 80GB HBM3": 3350.0,
    "H100 PCIe": 2000.0,
    "A100-SXM4-80GB": 2039.0,
    "L40S": 864.0,
    "L4": 300.0,
    "RTX 4090": 1008.0,
}


def scans(
    scanner: Scanner,
    *,
    rows: int,
    dimension: int,
    bandwidth: float,
    slab_rows: int = GROUP * SEGMENT_ROWS,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """Milliseconds and ratios of scans of all slabs; bandwidth in GB/s."""
    rng = np.random.default_rng(0)
    slabs, began = [], time.perf_counter()
    uploading = 0.0
    for start in range(0, rows, slab_rows):
        part = unit_rows(rng, min(slab_rows, rows - start), dimension)
        began = time.perf_counter()
        slabs.append((scanner.upload(part), len(part)))
        uploading += time.perf_counter() - began
        del part
    memory = 1e3 * rows * dimension * 2 / (bandwidth * 1e9)
    figures = {
        "rows": rows,
        "dimension": dimension,
        "memory_ms": memory,
        "uploaded_rows_per_second": rows / uploading,
    }
    for name, share in SHARES.items():
        bitmaps = [
            None if share is None else np.packbits(rng.random(count) < share, bitorder="little")
            for _, count in slabs
        ]
        for batch in BATCHES:
            queries = unit_rows(rng, batch, dimension)

            def scan(
                queries: NDArray[np.float32] = queries,
                bitmaps: Sequence[NDArray[np.uint8] | None] = bitmaps,
            ) -> None:
                for (handle, count), bitmap in zip(slabs, bitmaps, strict=True):
                    passing = count if bitmap is None else int(np.bitwise_count(bitmap).sum())
                    scanner.search(handle, queries, min(TOP_K, passing), bitmap)

            taken = _median(scan, rounds)
            figures[f"{name}_batch_{batch}_ms"] = taken
            figures[f"{name}_batch_{batch}_over_memory"] = taken / memory
    for handle, _ in slabs:
        scanner.release(handle)
    return figures


def whole(
    made: Callable[[], Scanner], *, rows: int, dimension: int, rounds: int = ROUNDS
) -> dict[str, float]:
    """Searches of the index around it, whose answers must be those of the CPU alone."""
    rng = np.random.default_rng(1)
    vectors, queries = unit_rows(rng, rows, dimension), unit_rows(rng, max(BATCHES), dimension)
    device = Device(made, dimension=dimension)
    index, alone = GpuIndex(dimension, device=device), SegmentedIndex(dimension)
    filled(index, vectors, np.random.default_rng(2))
    filled(alone, vectors, np.random.default_rng(2))
    index.settle()
    figures: dict[str, float] = {
        "rows_on_device": index.rows_on_device,
        "selectors_honoured": device.selectors,
    }
    filters = {"plain": RowFilter(), "half": RowFilter(include_cameras=frozenset(range(50)))}
    for name, chosen in filters.items():
        expected = alone.search_batch(queries, TOP_K, chosen, None)
        for answer, right in zip(
            index.search_batch(queries, TOP_K, chosen, None), expected, strict=True
        ):
            if list(answer.ids) != list(right.ids) or (answer.scores != right.scores).any():
                raise RuntimeError(f"the GPU index answered {name} otherwise than the CPU")
        for batch in BATCHES:
            asked = queries[:batch]
            figures[f"index_{name}_batch_{batch}_ms"] = _median(
                lambda asked=asked, chosen=chosen: index.search_batch(asked, TOP_K, chosen, None),  # type: ignore[misc]
                rounds,
            )
        figures[f"cpu_{name}_batch_1_ms"] = _median(
            lambda chosen=chosen: alone.search(queries[0], TOP_K, chosen, None),  # type: ignore[misc]
            min(rounds, 5),
        )
    if device.failure:
        raise RuntimeError(device.failure)
    index.close()
    device.close()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--bandwidth", type=float, help="GB/s of the card's memory")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        scanner = FaissScanner(chosen.device)
        bandwidth = chosen.bandwidth or _bandwidth(chosen.device)
    except FailedPrecondition as error:
        print(f"no GPU to measure: {error}", file=sys.stderr)
        return 1
    figures: dict[str, Any] = {"card": _card(chosen.device), "bandwidth_gb_s": bandwidth}
    figures |= scans(scanner, rows=chosen.rows, dimension=chosen.dimension, bandwidth=bandwidth)
    if chosen.whole:
        del scanner
        figures |= whole(
            lambda: FaissScanner(chosen.device), rows=chosen.rows, dimension=chosen.dimension
        )
    if chosen.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        print(f"{name:32s} {value}" if isinstance(value, str) else f"{name:32s} {value:14.4g}")
    return 0


def _median(call: Callable[[], object], rounds: int) -> float:
    """Milliseconds, after two calls that do not count."""
    taken = []
    for number in range(-2, rounds):
        began = time.perf_counter()
        call()
        if number >= 0:
            taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken)


def _card(device: int) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    asked = [program, f"--id={device}", "--query-gpu=name", "--format=csv,noheader"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def _bandwidth(device: int) -> float:
    name = _card(device)
    for part, value in BANDWIDTHS.items():
        if part in name:
            return value
    raise FailedPrecondition(
        f"the memory bandwidth of {name!r} is not known here; give --bandwidth"
    )
