"""Work that is dealt out comes back in order, whole, and with its errors."""

from __future__ import annotations

import threading
import time

import faiss
import numpy as np
import pytest

from service.domain.ports import RowFilter
from service.gallery import index as index_module
from service.gallery.index import SegmentedIndex
from service.gallery.search_threads import SearchThreads
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit
from tests.service.gallery.test_sealing import made_rows


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 2, 7, 8, 20])
def test_results_are_in_order(count: int, items: int) -> None:
    threads = SearchThreads(count)
    try:
        assert threads.map(lambda item: item * item, range(items)) == [n * n for n in range(items)]
    finally:
        threads.close()


def test_the_caller_works_beside_the_others() -> None:
    threads, together = SearchThreads(3), threading.Barrier(3, timeout=60)
    try:
        names = threads.map(lambda _: (together.wait(), threading.get_ident())[1], range(3))
    finally:
        threads.close()
    assert len(set(names)) == 3
    assert threading.get_ident() in names


@pytest.mark.parametrize("count", [1, 2])
def test_faiss_uses_one_thread_meanwhile(count: int) -> None:
    threads, before = SearchThreads(count), faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        assert threads.map(lambda _: faiss.omp_get_max_threads(), range(4)) == [1] * 4
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)
        threads.close()


@pytest.mark.parametrize("wrong", [0, 1])
def test_an_error_comes_back_after_the_last_has_ended(wrong: int) -> None:
    threads, ended = SearchThreads(2), []

    def work(item: int) -> None:
        if item == wrong:
            raise KeyError(item)
        time.sleep(0.05)
        ended.append(item)

    try:
        with pytest.raises(KeyError):
            threads.map(work, range(2))
        assert ended == [1 - wrong]
    finally:
        threads.close()


def test_answers_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SHARED_SEGMENTS", 0)
    monkeypatch.setattr(index_module, "SHARED_PRODUCTS", 0)
    rows: list[Row] = made_rows(300)
    threads = SearchThreads(3)
    index = SegmentedIndex(len(rows[0].vector), segment_rows=40, threads=threads)
    index.add(as_rows(rows))
    queries = unit(np.random.default_rng(9).standard_normal((3, index.dimension)))
    try:
        for chosen in (RowFilter(), RowFilter(include_cameras=frozenset([1, 2]), start=20)):
            answers = index.search_batch(queries, 20, chosen, None)
            for query, hits in zip(queries, answers, strict=True):
                expected, _ = brute_force(rows, query, 20, chosen, None)
                assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected
    finally:
        threads.close()
