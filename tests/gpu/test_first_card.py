"""What the first real card runs: nothing here has been run on one yet.

    .venv/bin/pytest tests/gpu tests/contract -k gpu

in an environment with the extra ``service-gpu``. Everything skips, visibly, without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

import numpy as np
import pytest

from service.domain.ports import IndexRows, RowFilter
from service.gallery.index import SegmentedIndex
from service.gpu.device import Device
from service.gpu.index import GpuIndex
from service.gpu.scanner import Scanner
from service.gpu.self_check import selectors_honoured
from tests.contract.adapters import faiss_gpu


@pytest.fixture(scope="module")
def made() -> Callable[[], Scanner]:
    return faiss_gpu()


@pytest.fixture
def device(made: Callable[[], Scanner]) -> Iterator[Device]:
    device = Device(made, dimension=256)
    yield device
    device.close()


@pytest.mark.parametrize("dimension", [64, 128, 256, 512, 768, 2048])
def test_neighbours_are_right_and_bitmaps_are_honoured(
    made: Callable[[], Scanner], dimension: int
) -> None:
    assert selectors_honoured(made(), dimension), "see the log: which row, against which bitmap"


def test_a_slab_of_a_million_rows_is_searched_deep_and_in_batches(
    made: Callable[[], Scanner],
) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1_048_576, 256), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:64].copy()
    scanner = made()
    handle = scanner.upload(vectors)
    mask = rng.random(len(vectors)) < 0.01
    mask[:64] = True
    for k, bitmap in ((1, None), (2048, None), (scanner.max_k, None), (5000, mask)):
        packed = None if bitmap is None else np.packbits(bitmap, bitorder="little")
        found = scanner.search(handle, queries, k, packed)
        assert found.rows.shape == (64, k)
        np.testing.assert_array_equal(found.rows[:, 0], np.arange(64))
        if bitmap is not None:
            assert bitmap[found.rows].all()
    scanner.release(handle)


def test_memory_comes_back(made: Callable[[], Scanner]) -> None:
    """A hundred gigabytes pass through, in slabs of one."""
    vectors = np.zeros((1_048_576, 512), np.float32)
    vectors[:, 0] = 1
    scanner = made()
    for _ in range(100):
        scanner.release(scanner.upload(vectors))


def test_a_large_index_answers_as_the_cpu_alone(device: Device) -> None:
    rng = np.random.default_rng(1)
    rows = 400_000
    vectors = rng.standard_normal((rows, 256), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # Every hundredth twice, so that ties are there.
    vectors[1::100] = vectors[::100]
    added = IndexRows(
        rng.integers(1, 2**63, (rows, 2), dtype=np.uint64),
        rng.integers(0, 20, rows),
        np.arange(rows, dtype=np.int64),
        vectors,
    )
    index, alone = GpuIndex(256, device=device), SegmentedIndex(256)
    for each in (index, alone):
        each.add(added)
        gone = [UUID(int=int(high) << 64 | int(low)) for high, low in added.ids[::7]]
        each.remove(gone)
    index.settle()
    assert index.rows_on_device
    assert device.selectors
    queries = vectors[:16]
    for chosen in (
        RowFilter(),
        RowFilter(exclude_cameras=frozenset([3])),
        RowFilter(start=50_000, end=350_000, include_cameras=frozenset(range(10))),
    ):
        for top_k in (1, 100, 3000):
            answers = index.search_batch(queries, top_k, chosen, None)
            expected = alone.search_batch(queries, top_k, chosen, None)
            for hits, right in zip(answers, expected, strict=True):
                assert list(hits.ids) == list(right.ids)
                np.testing.assert_array_equal(hits.scores, right.scores)
    assert not device.failure
    index.close()
