"""One contestant measured in a process of its own, so that neither memory nor imports mix."""

from __future__ import annotations

import gc
import importlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.contestant import Contestant
from bench.peers.site import TOP_K, Condition, Site

__all__ = ["CONTESTANTS", "measured", "reopened", "versions"]

# Name: module and class of the adapter, and the packages it stands for.
CONTESTANTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ours, index": ("ours", "Ours", ()),
    "ours, service": ("served", "Served", ()),
    "faiss flat": ("faiss_flat", "FaissFlat", ("faiss",)),
    "Milvus Lite": ("milvus", "MilvusLite", ("pymilvus", "milvus_lite")),
    "Qdrant local, memory": ("qdrant", "QdrantMemory", ("qdrant_client",)),
    "Qdrant local, folder": ("qdrant", "QdrantFolder", ("qdrant_client",)),
    "hnswlib": ("graphs", "Hnswlib", ("hnswlib",)),
    "hnswlib exact": ("graphs", "HnswlibExact", ("hnswlib",)),
    "usearch": ("graphs", "Usearch", ("usearch",)),
    "usearch exact": ("graphs", "UsearchExact", ("usearch",)),
}
DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "pymilvus": "pymilvus",
    "milvus_lite": "milvus-lite",
    "qdrant_client": "qdrant-client",
    "hnswlib": "hnswlib",
    "usearch": "usearch",
}
# Rows that are replaced, and as many that are deleted.
CHANGED = 20
LEAST_QUERIES = 3
WARM_UP = 2


def versions(name: str) -> dict[str, str]:
    """Versions of a contestant's packages.

    Raises:
        ImportError: one is not installed.
    """
    found = {}
    for package in CONTESTANTS[name][2]:
        importlib.import_module(package)
        found[DISTRIBUTIONS[package]] = importlib.metadata.version(DISTRIBUTIONS[package])
    return found


def measured(
    name: str, site: Site, folder: Path, threads: int, load_s: float, search_s: float
) -> dict[str, Any]:
    """Everything but the restart; the store is left in ``folder``."""
    made = _class(name)
    before = _resident()
    store: Contestant = made(site, folder, threads, reopen=False)
    figures: dict[str, Any] = {"filtering": store.filtering}
    rows, began = 0, time.perf_counter()
    for done in store.load():
        rows = done
        if time.perf_counter() - began > load_s:
            break
    store.loaded()
    seconds = time.perf_counter() - began
    figures |= {"rows_loaded": rows}
    if store.loads:
        figures |= {"load_s": seconds, "load_rows_per_s": rows / seconds}
    if rows < site.rows:
        store.close()
        return figures | {"gave_up": f"{rows} of {site.rows} rows after {seconds:.0f} s"}
    gc.collect()
    figures["searches"] = {
        label: _searches(store, site, label, condition, search_s)
        for label, condition in site.conditions.items()
    }
    gc.collect()
    figures["bytes_per_row"] = (_resident() - before) / site.rows
    figures |= _changes(store, site)
    figures["close_s"] = _seconds(store.close)
    return figures


def reopened(name: str, site: Site, folder: Path, threads: int) -> dict[str, Any]:
    """The restart: until the first answer, and whether the changes are still there."""
    made = _class(name)
    before = _resident()
    query = site.queries[0]
    began = time.perf_counter()
    store: Contestant = made(site, folder, threads, reopen=True)
    store.search(query, TOP_K, Condition())
    figures: dict[str, Any] = {
        "restart_s": time.perf_counter() - began,
        "restart_bytes_per_row": (_resident() - before) / site.rows,
    }
    replaced, deleted, vectors = _changed(site)
    try:
        back = sum(row in store.search(_own(site, row), TOP_K, Condition()) for row in deleted)
        figures["deleted_come_back"] = back / CHANGED
        if store.loads:
            kept = sum(
                row in store.search(vector, TOP_K, Condition())
                for row, vector in zip(replaced, vectors, strict=True)
            )
            figures["upserts_kept"] = kept / CHANGED
    except RuntimeError as error:
        figures["after_restart_error"] = _short(error)
    store.close()
    return figures


def _class(name: str) -> Callable[..., Contestant]:
    module, kind, _ = CONTESTANTS[name]
    found: Callable[..., Contestant] = getattr(
        importlib.import_module(f"bench.peers.{module}"), kind
    )
    versions(name)
    return found


def _searches(
    store: Contestant, site: Site, label: str, condition: Condition, most_s: float
) -> dict[str, Any]:
    """Latencies and correctness; stops after so many seconds, but not before a few queries."""
    queries = site.queries
    for query in queries[:WARM_UP]:
        _answer(store, query, condition)
    times: list[float] = []
    found: dict[int, list[int]] = {}
    errors: dict[str, int] = {}
    began = time.perf_counter()
    for number, query in enumerate(queries):
        if number >= LEAST_QUERIES and time.perf_counter() - began > most_s:
            break
        asked = time.perf_counter()
        rows, error = _answer(store, query, condition)
        times.append(time.perf_counter() - asked)
        found[number] = rows
        if error:
            errors[error] = errors.get(error, 0) + 1
    milliseconds = 1e3 * np.array(times)
    return {
        "queries": len(times),
        "p50_ms": float(np.percentile(milliseconds, 50)),
        "p99_ms": float(np.percentile(milliseconds, 99)),
        "least_ms": float(milliseconds.min()),
        **site.judge(label, found),
        **({"errors": errors} if errors else {}),
    }


def _answer(
    store: Contestant, query: NDArray[np.float32], condition: Condition
) -> tuple[list[int], str]:
    try:
        return store.search(query, TOP_K, condition), ""
    except RuntimeError as error:
        # hnswlib raises this when it finds fewer rows than it was asked for.
        return [], _short(error)


def _changes(store: Contestant, site: Site) -> dict[str, Any]:
    """Rows replaced and deleted one by one; what a search finds right after."""
    replaced, deleted, vectors = _changed(site)
    figures: dict[str, Any] = {}
    try:
        times = []
        found = stale = 0
        for row, vector in zip(replaced, vectors, strict=True):
            times.append(_seconds(lambda row=row, vector=vector: store.upsert(row, vector)))
            found += row in _answer(store, vector, Condition())[0]
            stale += row in _answer(store, _own(site, row), Condition())[0]
        figures |= {
            "upsert_p50_ms": 1e3 * float(np.median(times)),
            "upserts_found": found / CHANGED,
            "upserts_stale": stale / CHANGED,
        }
    except (NotImplementedError, RuntimeError) as error:
        figures["upsert_error"] = _short(error)
    times, after = [], []
    there = 0
    for row in deleted:
        times.append(_seconds(lambda row=row: store.delete(row)))
        asked = time.perf_counter()
        there += row in _answer(store, _own(site, row), Condition())[0]
        after.append(time.perf_counter() - asked)
    return figures | {
        "delete_p50_ms": 1e3 * float(np.median(times)),
        "search_after_delete_p50_ms": 1e3 * float(np.median(after)),
        "deleted_found": there / CHANGED,
    }


def _changed(site: Site) -> tuple[list[int], list[int], NDArray[np.float32]]:
    """Rows to replace, rows to delete, the new vectors; the same in every process."""
    rng = np.random.default_rng(7)
    rows = rng.choice(site.rows, 2 * CHANGED, replace=False).tolist()
    vectors = rng.standard_normal((CHANGED, site.dimension), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows[:CHANGED], rows[CHANGED:], vectors


def _own(site: Site, row: int) -> NDArray[np.float32]:
    """The vector that a row was loaded with."""
    return np.array(site.vectors[row])


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:120]


def _resident() -> int:
    """Bytes in memory of this process and of those that it began (Linux)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    total, waiting = 0, [os.getpid()]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, [])
        try:
            total += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
    return total * os.sysconf("SC_PAGE_SIZE")
