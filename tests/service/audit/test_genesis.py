"""Which ends of chains a new one names, against a naive reading of every entry."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, delete, event, update

from service.audit import genesis
from service.audit.chain import Head, beginning
from service.audit.entry import CHAIN_ENDED, Entry
from service.audit.genesis import first_entry, open_ends
from service.audit.linking import linked
from service.catalog import audit as statements
from service.catalog.engine import open_engine
from service.catalog.models import audit_entries

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def engine(catalog_url: str) -> Iterator[Engine]:
    opened = open_engine(catalog_url, pool_size=1, writer=True)
    yield opened
    opened.dispose()


def naively(connection: Connection) -> list[Head]:
    """The newest entry of each chain, unless a first entry names it or one after it."""
    ends: dict[UUID, Head] = {}
    named: list[Head] = []
    for entry in statements.all_entries(connection):
        ends[entry.chain_id] = Head(entry.chain_id, entry.sequence, entry.digest)
        if entry.sequence == 1:
            try:
                before = list(json.loads(entry.body)["before"])
            except (ValueError, TypeError):
                continue
            named += [
                Head(UUID(each["chain"]), each["sequence"], bytes.fromhex(each["digest"]))
                for each in before
            ]
    return [
        end for end in ends.values()
        if not any(
            each.chain_id == end.chain_id and each.sequence >= end.sequence for each in named
        )
    ]  # fmt: skip


def store(connection: Connection, head: Head, *entries: Entry) -> Head:
    head, rows = linked(head, [(each.columns(), each.body(NOW)) for each in entries], NOW)
    statements.add(connection, rows)
    return head


def history(connection: Connection, chains: int, rng: random.Random) -> dict[UUID, Head]:
    """Chains one after the other, each naming some ends as they are, or were before."""
    ends: dict[UUID, Head] = {}
    for number in range(chains):
        was = rng.sample(list(ends.values()), min(len(ends), rng.randrange(3)))
        for chain_id in rng.sample(list(ends), min(len(ends), rng.randrange(3))):
            ends[chain_id] = store(connection, ends[chain_id], Entry("a/b"))
        now = rng.sample(list(ends.values()), min(len(ends), rng.randrange(4)))
        begun = first_entry(f"r{number}", "somebody", [*was, *now], None, {})
        more = [Entry("a/b")] * rng.randrange(4) + [Entry(CHAIN_ENDED)] * rng.randrange(2)
        chain_id = UUID(int=rng.getrandbits(128))
        ends[chain_id] = store(connection, beginning(chain_id), begun, *more)
    return ends


@pytest.mark.parametrize("seed", range(3))
def test_every_open_end_and_no_other(engine: Engine, seed: int) -> None:
    rng = random.Random(seed)
    here = audit_entries.c
    with engine.begin() as connection:
        assert open_ends(connection) == []
        ends = history(connection, 60, rng)
        expected = naively(connection)
        assert 0 < len(expected) < len(ends)
        assert open_ends(connection) == expected
        # Pruned, wholly and in part, and damaged: what they named is nobody's any more.
        gone, cut, damaged, strange = rng.sample(list(ends), 4)
        connection.execute(delete(audit_entries).where(here.chain_id == gone))
        ends[cut] = store(connection, ends[cut], Entry("a/b"))
        connection.execute(
            delete(audit_entries).where(here.chain_id == cut, here.sequence < ends[cut].sequence)
        )
        for chain_id, body in ((damaged, "{"), (strange, '{"before": 3}')):
            first = (here.chain_id == chain_id, here.sequence == 1)
            connection.execute(update(audit_entries).where(*first).values(body=body))
        expected = naively(connection)
        assert open_ends(connection) == expected
        assert {ends[cut]} <= set(expected)
        assert gone not in {end.chain_id for end in expected}
        assert statements.chains(connection) == sorted(set(ends) - {gone})


def test_what_does_not_fit_is_named_by_the_next(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(genesis, "MAX_NAMED", 7)
    with engine.begin() as connection:
        history(connection, 30, random.Random(5))
        wanted, named = set(naively(connection)), set[Head]()
        assert len(wanted) > 7
        for number in range(len(wanted)):
            ends = open_ends(connection)
            assert len(ends) <= 7
            named |= set(ends)
            begun = first_entry("later", "somebody", ends, None, {})
            store(connection, beginning(UUID(int=number)), begun)
        assert named > wanted


def test_a_start_asks_as_often_after_many_chains_as_after_few(engine: Engine) -> None:
    asked: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    counts: list[int] = []
    with engine.begin() as connection:
        for _ in range(2):
            history(connection, 40, random.Random(len(counts)))
            ends = open_ends(connection)
            store(
                connection, beginning(UUID(int=len(counts))), first_entry("n", "s", ends, None, {})
            )
            asked.clear()
            assert len(open_ends(connection)) == 1
            counts.append(len(asked))
    assert counts == [counts[0]] * 2
