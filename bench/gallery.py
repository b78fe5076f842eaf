"""The gallery's index beside faiss alone: search, filters, batches, memory, removal, files.

    python -m bench gallery [--rows 1000000] [--dimension 256] [--threads 1] [--json]

Searches of our index (planner, exact re-scoring, ids, tombstones, segments) and of
`IndexFlatIP.search` on the same vectors take turns, on as many threads each; the medians' ratios
are what counts, and where others compute on the same cores, those of the least times. Filters that
keep 1 % of the rows do so by camera and by attribute at random places, by time in one stretch. The
files are read back from the page cache, verified.
`python -m bench ingest` measures what it takes to store crops.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from service.domain.crop import AttributeTerm
from service.domain.ports import IndexRows, RowFilter
from service.gallery.index import SegmentedIndex
from service.gallery.index_folder import IndexFolder, LogMark
from service.gallery.row_ids import uuids
from service.gallery.search_threads import SearchThreads

QUERIES = 20
TOP_K = 10
BATCH = 16
SPAN = 10**12
BLOCK = 20_000


def unit_rows(rng: np.random.Generator, rows: int, dimension: int) -> NDArray[np.float32]:
    """Random unit vectors (rows, dimension)."""
    vectors = rng.standard_normal((rows, dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def in_turn(*calls: Callable[[int], object], rounds: int = QUERIES) -> list[tuple[float, float]]:
    """Median and least milliseconds of each call; the calls alternate, so that noise meets all."""
    seconds: list[list[float]] = [[] for _ in calls]
    for query in range(-2, rounds):
        for call, times in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            call(query % QUERIES)
            if query >= 0:
                times.append(time.perf_counter() - began)
    return [(1e3 * statistics.median(times), 1e3 * min(times)) for times in seconds]


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began)


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def filled(index: SegmentedIndex, vectors: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Rows as a site gives them: in order of time, ten crops a track, a hundred cameras."""
    rows = len(vectors)
    for start in range(0, rows, BLOCK):
        part = vectors[start : start + BLOCK]
        count = len(part)
        times = (np.arange(start, start + count) * (SPAN // rows)).astype(np.int64)
        colours = rng.integers(0, 100, count).tolist()
        index.add(
            IndexRows(
                rng.integers(1, 2**63, (count, 2), dtype=np.uint64),
                rng.integers(0, 100, count),
                times,
                part,
                zones=[f"zone {number % 10}" for number in range(count)],
                tracks=[f"track {(start + number) // 10}" for number in range(count)],
                attributes=[{"colour": str(colour)} for colour in colours],
            )
        )


def search(rows: int, dimension: int, threads: int) -> dict[str, float]:
    """Searches with and without filters, alone and in a batch, beside faiss flat alone."""
    rng = np.random.default_rng(0)
    vectors, queries = unit_rows(rng, rows, dimension), unit_rows(rng, QUERIES, dimension)
    gc.collect()
    before = resident()
    index = SegmentedIndex(dimension, threads=SearchThreads(threads))
    began = time.perf_counter()
    filled(index, vectors, rng)
    added = time.perf_counter() - began
    grown = resident() - before
    flat = faiss.IndexFlatIP(dimension)
    flat.add(vectors)
    del vectors
    faiss.omp_set_num_threads(threads)
    filters = {
        "plain": RowFilter(),
        "camera_1%": RowFilter(include_cameras=frozenset([3])),
        "attribute_1%": RowFilter(include_attributes=[AttributeTerm("colour", ["7"])]),
        "time_1%": RowFilter(start=SPAN // 2, end=SPAN // 2 + SPAN // 100),
        "cameras_10%": RowFilter(include_cameras=frozenset(range(10))),
        "half": RowFilter(include_cameras=frozenset(range(50))),
        "one_zone_less": RowFilter(exclude_zones=frozenset(["zone 3"])),
    }
    times = in_turn(
        lambda query: flat.search(queries[query : query + 1], TOP_K),
        *(
            lambda query, chosen=chosen: index.search(queries[query], TOP_K, chosen, None)
            for chosen in filters.values()
        ),
    )
    figures: dict[str, float] = {}
    for name, (median, least) in zip(("faiss_flat", *filters), times, strict=True):
        figures |= {f"{name}_ms": median, f"{name}_least_ms": least}
    for name in filters:
        above, below = ("plain", "faiss_flat") if name == "plain" else ("plain", name)
        for kind in ("ms", "least_ms"):
            ratio = figures[f"{above}_{kind}"] / figures[f"{below}_{kind}"]
            figures[f"{above}_over_{below}_{kind.removesuffix('ms')}ratio"] = ratio
    (batch, _), (faiss_batch, _) = in_turn(
        lambda _: index.search_batch(queries[:BATCH], TOP_K, RowFilter(), None),
        lambda _: flat.search(queries[:BATCH], TOP_K),
        rounds=5,
    )
    figures |= {
        f"batch_of_{BATCH}_ms": batch,
        f"faiss_batch_of_{BATCH}_ms": faiss_batch,
        "batch_over_faiss_batch": batch / faiss_batch,
        "batch_over_as_many_searches": batch / (BATCH * figures["plain_ms"]),
        "rows_added_per_second": rows / added,
        "index_bytes_per_row": index.nbytes / rows,
        "resident_bytes_per_row": grown / rows,
        "allowed_bytes_per_row": 1.3 * 4 * dimension + 100,
    }
    figures |= files(index, dimension)
    figures |= removal(index, queries)
    return figures


def files(index: SegmentedIndex, dimension: int) -> dict[str, float]:
    """Written, read back, and written again when ten rows of one segment are gone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        kept = IndexFolder(path, model_version="m", dimension=dimension)
        write = timed(lambda: kept.write(index.snapshot, LogMark(1, "x")))
        again = SegmentedIndex(dimension)

        def read() -> None:
            reader = IndexFolder(path, model_version="m", dimension=dimension)
            for segment in reader.read(segment_rows=65_536).segments:
                again.adopt(segment)

        read_ms = timed(read)
        if len(again) != len(index):
            raise RuntimeError(f"{len(again)} of {len(index)} rows were read back")
        index.remove(uuids(index.snapshot.views[0].columns.ids[:10]))
        rewrite = timed(lambda: kept.write(index.snapshot, LogMark(2, "y")))
    return {"files_write_ms": write, "files_read_ms": read_ms, "files_rewrite_one_ms": rewrite}


def removal(index: SegmentedIndex, queries: NDArray[np.float32]) -> dict[str, float]:
    """Rows removed at random, one and many; a search among tombstones; compaction; retention."""
    rng = np.random.default_rng(2)
    ids = index.snapshot.ids()
    shuffled = uuids(ids[rng.permutation(len(ids))[:10_001]])
    figures = {
        "remove_one_ms": timed(lambda: index.remove(shuffled[:1])),
        "remove_10000_ms": timed(lambda: index.remove(shuffled[1:])),
    }
    ((among, _),) = in_turn(lambda query: index.search(queries[query], TOP_K, RowFilter(), None))
    figures["plain_among_tombstones_ms"] = among
    living = index.snapshot.ids()
    gone = uuids(living[rng.random(len(living)) < 0.25])
    figures["remove_quarter_ms"] = timed(lambda: index.remove(gone))
    tombstones = index.tombstones
    figures["compact_ms"] = timed(index.compact)
    figures["compacted_rows"] = tombstones - index.tombstones
    figures["drop_before_half_ms"] = timed(lambda: index.drop_before(SPAN // 2))
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    figures = search(options.rows, options.dimension, options.threads)
    if options.json:
        print(json.dumps(vars(options) | figures))
        return
    for name, value in figures.items():
        print(f"{name:30} {value:.3f}")


if __name__ == "__main__":
    main()
