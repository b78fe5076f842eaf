"""Chains one after the other: pruned, set back, taken away."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, update

from service.audit import pruning
from service.audit.anchors import open_anchors
from service.audit.entry import Entry
from service.audit.pruning import Pruning
from service.audit.verifying import Verdict, anchors_of, verify
from service.catalog.models import audit_checkpoints, audit_entries
from service.catalog.store import Catalog


def verdict_of(catalog: Catalog, **options: Any) -> Verdict:
    with catalog.connect() as connection:
        return verify(connection, **options)


def pruner(audit: Any, catalog: Catalog, clock: Any, keep: timedelta) -> Pruning:
    return Pruning(
        catalog, audit._writer.writer, audit.log, key=audit.key, clock=clock, keep=keep
    )  # fmt: skip


@pytest.fixture
def old_chain(audited: Callable[..., Any], ticking: Any) -> Callable[[], Any]:
    """A chain of 22 entries, one second apart."""

    async def work() -> None:
        async with audited(checkpoint_entries=5, clock=ticking) as audit:
            for number in range(20):
                await audit.log.record(Entry("a/b", facts={"notes": {"n": number}}))

    return work


def test_what_is_too_old_goes_and_the_rest_is_sound(
    audited: Callable[..., Any], run: Any, catalog: Catalog, ticking: Any, query: Any,
    old_chain: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any,
) -> None:  # fmt: skip
    monkeypatch.setattr(pruning, "BLOCK", 4)
    url = f"file://{tmp_path}/anchors"

    async def work() -> int:
        await old_chain()
        limit = ticking.time - timedelta(seconds=10)
        async with audited(data="next", clock=ticking, anchor_url=url) as audit:
            keep = ticking.time - limit
            removed = await pruner(audit, catalog, ticking, keep).prune()
            assert await pruner(audit, catalog, ticking, timedelta(days=1)).prune() == 0
            return removed

    removed = run(work())
    assert 0 < removed < 22
    [(chain, left)] = query(
        "SELECT chain_id, min(sequence) FROM audit_entries GROUP BY chain_id "
        "HAVING min(sequence) > 1"
    )
    assert left == removed + 1
    assert verdict_of(catalog).faults == []
    assert verdict_of(catalog, anchors=anchors_of(open_anchors(url).all())).faults == []
    [(body,)] = query("SELECT body FROM audit_entries WHERE action = 'audit/pruned'")
    assert json.loads(body)["notes"]["chain"] == bytes(chain).hex()
    # Without the key nobody makes more disappear.
    entries, stated = audit_entries.c, audit_checkpoints.c
    with catalog._write_engine.connect() as connection:
        here = (entries.chain_id == _uuid(chain), entries.sequence == left)
        connection.execute(delete(audit_entries).where(*here))
        [fault] = verify(connection).faults
        assert fault.sequence == left
        base = (stated.chain_id == _uuid(chain), stated.kind == "base")
        connection.execute(update(audit_checkpoints).where(*base).values(sequence=left))
        assert verify(connection).faults
        connection.rollback()


def test_a_damaged_chain_is_not_pruned(
    audited: Callable[..., Any], run: Any, catalog: Catalog, ticking: Any, query: Any,
    old_chain: Any,
) -> None:  # fmt: skip
    run(old_chain())
    with catalog._write_engine.begin() as connection:
        connection.execute(
            update(audit_entries).where(audit_entries.c.sequence == 3).values(body="{}")
        )

    async def work() -> None:
        async with audited(data="next", clock=ticking) as audit:
            assert await pruner(audit, catalog, ticking, timedelta(seconds=2)).prune() == 0

    run(work())
    assert query("SELECT count(*) FROM audit_entries WHERE sequence > 20") == [(2,)]


def test_a_catalog_that_was_set_back_is_noticed(
    audited: Callable[..., Any], run: Any, catalog: Catalog, query: Any
) -> None:
    async def work(entries: int) -> None:
        async with audited() as audit:
            for _ in range(entries):
                await audit.log.record(Entry("a/b"))

    run(work(6))
    # What a restored snapshot lacks: the newest entries, and what vouched for them.
    with catalog._write_engine.begin() as connection:
        for table in (audit_entries, audit_checkpoints):
            connection.execute(delete(table).where(table.c.sequence > 3))
    assert verdict_of(catalog).faults == []
    run(work(1))
    rows = query("SELECT body FROM audit_entries WHERE action = 'audit/began'")
    said = [json.loads(body) for (body,) in rows]
    [noticed] = [each["missing"] for each in said if "missing" in each]
    assert noticed["sequence"] == 8
    [fault] = verdict_of(catalog).faults
    assert (fault.chain_id, fault.sequence) == (noticed["chain"], 4)
    run(work(1))
    assert len(verdict_of(catalog).faults) == 1


def test_every_chain_is_named_by_one_after_it(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited(data="a", replica="a"), audited(data="b", replica="b"):
            pass
        async with audited(data="c", replica="c"):
            pass
        async with audited(data="d", replica="d"):
            pass

    run(work())
    rows = query("SELECT body, chain_id FROM audit_entries WHERE action = 'audit/began'")
    chains = {json.loads(body)["replica"]: bytes(chain).hex() for body, chain in rows}
    named = {
        json.loads(body)["replica"]: [end["chain"] for end in json.loads(body)["before"]]
        for body, _ in rows
    }
    assert named["a"] == []
    assert named["b"] == [chains["a"]]
    # The first went on after it was named.
    assert sorted(named["c"]) == sorted([chains["a"], chains["b"]])
    assert named["d"] == [chains["c"]]


def _uuid(value: bytes) -> Any:
    return UUID(bytes=bytes(value))
