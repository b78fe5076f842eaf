"""The index with a device: what is asked of it, and what happens when it cannot be believed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID

import numpy as np
import pytest

from service.domain.ports import RowFilter
from service.gpu.device import Device
from service.gpu.index import GpuIndex
from service.gpu.scanner import Nearest
from service.telemetry import REGISTRY
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit
from tests.service.gpu import scanners
from tests.service.gpu.scanners import BitmapSabotaged, NumpyScanner, Sabotaged, Spoil

DIMENSION = 32
# What the check at start takes, so that a scanner can begin to fail after it.
CHECK = 6 + 3 * 5


def made(count: int, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        Row(
            UUID(bytes=rng.bytes(16)),
            unit(rng.standard_normal(DIMENSION)),
            camera=int(rng.integers(4)),
            time=number,
        )
        for number in range(count)
    ]


def opened(scanner: NumpyScanner, *, cpu_rows: int = 0) -> tuple[GpuIndex, Device]:
    device = Device(lambda: scanner, dimension=DIMENSION)
    index = GpuIndex(
        DIMENSION, device=device, segment_rows=50, gather_rows=5, group=4, cpu_rows=cpu_rows
    )
    return index, device


@pytest.fixture
def scanner() -> NumpyScanner:
    return NumpyScanner()


@pytest.fixture
def index(scanner: NumpyScanner) -> Iterator[GpuIndex]:
    index, device = opened(scanner)
    yield index
    index.close()
    assert not scanner.held
    device.close()


def fallbacks(reason: str) -> float:
    """As the metrics show them."""
    return REGISTRY.get_sample_value("resight_gpu_fallbacks_total", {"reason": reason}) or 0.0


def answers_as(index: GpuIndex, rows: list[Row], chosen: RowFilter = RowFilter()) -> bool:  # noqa: B008
    query = unit(np.ones(DIMENSION))
    hits = index.search(query, 20, chosen, None)
    expected, passing = brute_force(rows, query, 20, chosen, None)
    assert (hits.rows_scanned, hits.rows_total) == (passing, len(rows))
    return list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


def test_sealed_segments_are_on_the_device_and_the_last_is_not(
    index: GpuIndex, scanner: NumpyScanner
) -> None:
    rows = made(430)
    index.add(as_rows(rows))
    index.settle()
    assert index.rows_on_device == 400
    before = scanner.searches
    assert answers_as(index, rows)
    # 8 segments in slabs of 4.
    assert scanner.searches == before + 2


def test_removed_rows_are_never_found_on_the_device(index: GpuIndex, scanner: NumpyScanner) -> None:
    rows = made(430)
    index.add(as_rows(rows))
    index.settle()
    query = unit(np.ones(DIMENSION))
    left = rows
    while left:
        best = index.search(query, 7, RowFilter(), None).ids
        assert index.remove(best) == len(best)
        left = [row for row in left if row.crop_id not in set(best)]
        # The device follows when it may: its copy is behind or not.
        if len(left) % 2:
            index.settle()
        assert answers_as(index, left)


def test_dropped_segments_leave_the_device(index: GpuIndex, scanner: NumpyScanner) -> None:
    rows = made(600)
    index.add(as_rows(rows))
    index.settle()
    assert index.drop_before(500) == 500
    index.settle()
    assert index.rows_on_device <= 100
    assert answers_as(index, rows[500:])


def test_more_rows_than_the_device_returns(index: GpuIndex, scanner: NumpyScanner) -> None:
    """max_k is 500: deeper than that the CPU answers."""
    rows = made(1300)
    index.add(as_rows(rows))
    index.settle()
    query = unit(np.ones(DIMENSION))
    for top_k in (199, 499, 700, 1300):
        hits = index.search(query, top_k, RowFilter(), None)
        expected, _ = brute_force(rows, query, top_k, RowFilter(), None)
        assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


@pytest.mark.parametrize("max_k", [500, 100])
@pytest.mark.parametrize("queries", [1, 3])
def test_more_near_ties_than_were_asked_for(
    scanner: NumpyScanner, monkeypatch: pytest.MonkeyPatch, max_k: int, queries: int
) -> None:
    """Hundreds of rows that half precision cannot tell apart: asked deeper, or left to the CPU."""
    monkeypatch.setattr(scanner, "max_k", max_k)
    index, device = opened(scanner)
    rng = np.random.default_rng(5)
    base = unit(rng.standard_normal(DIMENSION))
    rows = [
        Row(UUID(bytes=rng.bytes(16)), unit(base + 1e-5 * rng.standard_normal(DIMENSION)))
        for _ in range(430)
    ]
    index.add(as_rows(rows))
    index.settle()
    before = fallbacks("too_deep")
    asked = np.stack([base, rows[3].vector, -base])[:queries]
    for top_k in (1, 5, 60):
        answers = index.search_batch(asked, top_k, RowFilter(), None)
        for query, hits in zip(asked, answers, strict=True):
            expected, _ = brute_force(rows, query, top_k, RowFilter(), None)
            assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected
    assert (fallbacks("too_deep") > before) == (max_k == 100)
    device.close()


def test_few_rows_are_left_to_the_cpu(scanner: NumpyScanner) -> None:
    index, device = opened(scanner, cpu_rows=120)
    rows = made(430)
    index.add(as_rows(rows))
    index.settle()
    before = scanner.searches
    assert answers_as(index, rows, RowFilter(include_cameras=frozenset([2])))
    assert scanner.searches == before
    assert answers_as(index, rows, RowFilter(exclude_cameras=frozenset([2])))
    assert scanner.searches > before
    device.close()


def test_without_bitmaps_only_whole_slabs_are_asked_of_the_device() -> None:
    scanner = BitmapSabotaged(scanners.ignored)
    index, device = opened(scanner)
    rows = made(430)
    index.add(as_rows(rows))
    index.settle()
    before, left = scanner.searches, fallbacks("no_bitmaps")
    assert answers_as(index, rows, RowFilter(exclude_cameras=frozenset([2])))
    assert scanner.searches == before
    assert fallbacks("no_bitmaps") == left + 2
    assert answers_as(index, rows)
    assert scanner.searches == before + 2
    gone = rows[:3]
    index.remove([row.crop_id for row in gone])
    assert answers_as(index, rows[3:])
    # The slab with the hole stayed on the CPU.
    assert scanner.searches == before + 3
    device.close()


@pytest.mark.parametrize("spoil", scanners.IMPOSSIBLE, ids=lambda spoil: spoil.__name__)
def test_a_device_that_answers_what_cannot_be_is_not_asked_again(spoil: Spoil) -> None:
    scanner = Sabotaged(spoil, after=CHECK)
    index, device = opened(scanner)
    rows = made(430)
    index.add(as_rows(rows))
    index.settle()
    assert scanner.searches == CHECK
    failed = fallbacks("failed")
    assert answers_as(index, rows)
    assert device.failure
    assert fallbacks("failed") == failed + 1
    searches = scanner.searches
    assert answers_as(index, rows)
    index.add(as_rows(made(200, seed=9)))
    assert scanner.searches == searches
    device.close()


def test_a_device_that_breaks_is_not_asked_again() -> None:
    def broken(found: object, rows: int) -> Nearest:
        raise RuntimeError("an illegal memory access was encountered")

    scanner = Sabotaged(broken, after=CHECK)
    index, device = opened(scanner)
    rows = made(430)
    index.add(as_rows(rows))
    index.settle()
    assert answers_as(index, rows)
    assert "illegal memory access" in device.failure
    device.close()


def test_a_device_that_breaks_while_rows_are_copied_to_it_is_not_asked_again() -> None:
    class Broken(NumpyScanner):
        def upload(self, vectors: np.ndarray) -> int:
            if self.searches >= CHECK:
                raise RuntimeError("an illegal memory access was encountered")
            return super().upload(vectors)

    index, device = opened(Broken())
    rows = made(430)
    index.add(as_rows(rows))
    # The copy is made behind the addition's back, by a thread that ends its line with this.
    device.feed(lambda: None).result()
    assert "illegal memory access" in device.failure
    assert index.rows_on_device == 0
    assert answers_as(index, rows)
    device.close()
    index.add(as_rows(made(200, seed=9)))
    assert len(index) == 630


def test_what_does_not_fit_on_the_device_is_the_cpus() -> None:
    scanner = NumpyScanner(room=6000)
    index, device = opened(scanner)
    # The check's sample has left; now there is room for 250 rows.
    scanner.room = 250
    before = fallbacks("no_room")
    rows = made(630)
    index.add(as_rows(rows))
    index.settle()
    assert 0 < index.rows_on_device <= 250
    assert fallbacks("no_room") > before
    assert device.usable
    assert answers_as(index, rows)
    # Room is made: what comes now is taken up.
    index.drop_before(400)
    index.settle()
    assert index.rows_on_device == 200
    assert answers_as(index, rows[400:])
    device.close()


def test_one_thread_alone_touches_the_scanner() -> None:
    """Searches on many threads while the index changes, and the scanner notes who calls."""
    callers: set[str] = set()

    class Watched(NumpyScanner):
        def upload(self, vectors: np.ndarray) -> int:
            callers.add(threading.current_thread().name)
            return super().upload(vectors)

        def search(
            self, handle: object, queries: np.ndarray, k: int, bitmap: np.ndarray | None
        ) -> Nearest:
            callers.add(threading.current_thread().name)
            return super().search(handle, queries, k, bitmap)

        def release(self, handle: object) -> None:
            callers.add(threading.current_thread().name)
            super().release(handle)

    index, device = opened(Watched())
    rows = made(1500)
    failures: list[BaseException] = []
    stop = threading.Event()

    def reader() -> None:
        query = unit(np.ones(DIMENSION))
        while not stop.is_set():
            try:
                index.search(query, 10, RowFilter(exclude_cameras=frozenset([1])), None)
            except BaseException as error:
                failures.append(error)
                return

    readers = [threading.Thread(target=reader) for _ in range(3)]
    for thread in readers:
        thread.start()
    for start in range(0, 1500, 30):
        index.add(as_rows(rows[start : start + 30]))
        index.remove([row.crop_id for row in rows[start : start + 10]])
    index.drop_before(700)
    stop.set()
    for thread in readers:
        thread.join()
    index.settle()
    assert not failures
    assert not device.failure
    assert len(callers) == 1
    left = [row for row in rows if row.time >= 700 and row.time % 30 >= 10]
    assert answers_as(index, left)
    device.close()
