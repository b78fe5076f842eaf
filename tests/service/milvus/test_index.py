"""What only the Milvus index has: partitions, failures half-way, a collection opened again."""

from __future__ import annotations

import fcntl
import importlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from resight.errors import FailedPrecondition, Unavailable
from service.domain.ports import RowFilter
from service.milvus import days
from service.milvus.collection import Collection
from service.milvus.connection import connect
from service.milvus.index import MilvusIndex
from tests.contract.adapters import milvus_client
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit

DIMENSION = 16
_numbers = itertools.count()


def made(count: int, seed: int = 0, spread: int = 4) -> list[Row]:
    """Rows over some days."""
    rng = np.random.default_rng(seed)
    return [
        Row(
            UUID(bytes=rng.bytes(16)),
            unit(rng.standard_normal(DIMENSION)),
            camera=int(rng.integers(3)),
            time=int(rng.integers(spread)) * days.MICROS + int(rng.integers(days.MICROS)),
            track=f"t{rng.integers(5)}",
        )
        for _ in range(count)
    ]


class Breaking:
    """A client whose calls fail when told to; the others reach milvus-lite."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.broken: dict[str, int] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def called(*positional: Any, **named: Any) -> Any:
            self.calls.append((name, named))
            if name in self.broken:
                self.broken[name] -= 1
                if self.broken[name] < 0:
                    from pymilvus import MilvusException

                    raise MilvusException(message="the server is on fire")
            return method(*positional, **named)

        return called


@pytest.fixture
def client() -> Breaking:
    return Breaking(milvus_client())


@pytest.fixture
def name(client: Breaking) -> Iterator[str]:
    chosen = f"index_{os.getpid()}_{next(_numbers)}"
    yield chosen
    client.broken = {}
    client.drop_collection(chosen)


@pytest.fixture
def index(client: Breaking, name: str) -> MilvusIndex:
    return MilvusIndex(Collection(client, name, DIMENSION, embedded=True))


def answers_as(index: MilvusIndex, rows: list[Row]) -> bool:
    query = unit(np.ones(DIMENSION))
    hits = index.search(query, 1000, RowFilter(), None)
    expected, passing = brute_force(rows, query, 1000, RowFilter(), None)
    assert len(index) == len(rows)
    assert (hits.rows_scanned, hits.rows_total) == (passing, len(rows))
    return list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


def test_a_day_is_a_partition_and_a_time_filter_names_the_partitions(
    index: MilvusIndex, client: Breaking
) -> None:
    rows = made(60)
    index.add(as_rows(rows))
    held = {row.time // days.MICROS for row in rows}
    assert index._collection.days() == held == {0, 1, 2, 3}
    client.calls.clear()
    chosen = RowFilter(start=1 * days.MICROS, end=3 * days.MICROS)
    hits = index.search(rows[0].vector, 100, chosen, None)
    assert hits.rows_scanned == sum(row.time // days.MICROS in (1, 2) for row in rows)
    # Whole days: no expression, no count, one call.
    assert [name for name, _ in client.calls] == ["search"]
    assert client.calls[0][1]["filter"] == ""
    assert client.calls[0][1]["partition_names"] == ["d19700102", "d19700103"]


def test_old_days_are_dropped_whole_and_only_the_day_of_the_cut_is_searched(
    index: MilvusIndex, client: Breaking
) -> None:
    rows = made(80)
    index.add(as_rows(rows))
    cut = 2 * days.MICROS + days.MICROS // 2
    client.calls.clear()
    gone = sum(row.time < cut for row in rows)
    assert index.drop_before(cut) == gone
    names = [name for name, _ in client.calls]
    assert (names.count("drop_partition"), names.count("delete")) == (2, 1)
    assert index._collection.days() == {2, 3}
    assert answers_as(index, [row for row in rows if row.time >= cut])


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_addition_that_fails_half_way_adds_nothing(
    index: MilvusIndex, client: Breaking, after: int
) -> None:
    """One insert a day: the failure comes when some days are there."""
    first, second = made(20, seed=1), made(30, seed=2)
    index.add(as_rows(first))
    client.broken = {"insert": after}
    with pytest.raises(Unavailable, match="on fire"):
        index.add(as_rows(second))
    # Nothing can be undone yet: nothing is answered rather than half of it.
    client.broken = {"delete": 0}
    with pytest.raises(Unavailable):
        index.search(first[0].vector, 5, RowFilter(), None)
    client.broken = {}
    assert answers_as(index, first)
    index.add(as_rows(second))
    assert answers_as(index, first + second)


def test_a_removal_that_fails_is_done_before_the_next_answer(
    index: MilvusIndex, client: Breaking
) -> None:
    rows = made(30)
    index.add(as_rows(rows))
    client.broken = {"delete": 0}
    with pytest.raises(Unavailable):
        index.remove([row.crop_id for row in rows[:10]])
    client.broken = {}
    assert answers_as(index, rows[10:])
    assert index.remove([row.crop_id for row in rows[:10]]) == 0


def test_a_failed_search_harms_nothing(index: MilvusIndex, client: Breaking) -> None:
    rows = made(10)
    index.add(as_rows(rows))
    client.broken = {"search": 0}
    with pytest.raises(Unavailable, match=r"milvus\.uri"):
        index.search(rows[0].vector, 5, RowFilter(), None)
    client.broken = {}
    assert answers_as(index, rows)


def test_a_collection_opened_again_has_its_rows(
    index: MilvusIndex, client: Breaking, name: str
) -> None:
    rows = made(50)
    index.add(as_rows(rows))
    index.remove([row.crop_id for row in rows[:5]])
    again = MilvusIndex(Collection(client, name, DIMENSION, embedded=True))
    assert answers_as(again, rows[5:])
    held = {UUID(int=high << 64 | low) for high, low in again.ids().tolist()}
    assert held == {row.crop_id for row in rows[5:]}


def test_a_discarded_collection_is_gone(index: MilvusIndex, client: Breaking, name: str) -> None:
    index.add(as_rows(made(5)))
    index.discard()
    assert not client.has_collection(name)
    assert len(MilvusIndex(Collection(client, name, DIMENSION, embedded=True))) == 0


def test_a_collection_of_other_vectors_is_refused(
    index: MilvusIndex, client: Breaking, name: str
) -> None:
    with pytest.raises(FailedPrecondition, match=r"milvus\.prefix"):
        Collection(client, name, DIMENSION + 1, embedded=True)


def test_without_the_extra_the_message_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(FailedPrecondition, match=r"resight\[service-cpu,milvus\]"):
        connect("http://localhost:19530")


def test_a_file_that_another_process_has_open_is_said_plainly(tmp_path: Path) -> None:
    milvus_client()
    lock = importlib.import_module("milvus_lite.db").LOCK_FILENAME
    (tmp_path / "held.db").mkdir()
    with (tmp_path / "held.db" / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="one process at a time"):
            connect(str(tmp_path / "held.db"))


def test_no_server_is_said_plainly() -> None:
    milvus_client()
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        connect("http://127.0.0.1:9", timeout=0.5)
