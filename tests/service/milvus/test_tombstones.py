"""Which insertions wait for a flush."""

from __future__ import annotations

import pytest

from service.milvus import tombstones
from service.milvus.tombstones import Tombstones


def test_every_id_may_have_been_deleted_by_a_process_before() -> None:
    made = Tombstones()
    assert made.hide(["a"])
    made.flushed()
    assert not made.hide(["a"])


def test_ids_that_were_deleted_and_no_others() -> None:
    made = Tombstones()
    made.flushed()
    made.deleted(["a", "b"])
    assert made.hide(["c", "b"])
    assert not made.hide(["c"])
    made.flushed()
    assert not made.hide(["a", "b"])


def test_what_is_not_known_is_every_id() -> None:
    made = Tombstones()
    made.flushed()
    made.deleted(None)
    assert made.hide(["z"])


def test_so_many_ids_that_they_are_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstones, "MOST", 3)
    made = Tombstones()
    made.flushed()
    made.deleted(["a", "b", "c"])
    assert not made.hide(["z"])
    made.deleted(["d"])
    assert made.hide(["z"])
