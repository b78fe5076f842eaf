"""What of a verdict somebody limited to galleries hears, counted from the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from service.audit.entry import Entry
from service.audit.share import ELSEWHERE
from service.audit.verifying import Verdict, verify
from service.catalog.models import audit_checkpoints, audit_entries
from service.catalog.store import Catalog

PLACES = ("a", "b", "a", "", "b", "b", "a", "c", "b", "a", "", "a")


@pytest.fixture
def filled(audited: Callable[..., Any], run: Any) -> None:
    """Two chains with entries of three galleries and of none; b is in the first alone."""

    async def work() -> None:
        for replica, places in (("one", PLACES), ("two", ("a", "", "c", "a"))):
            async with audited(data=replica, replica=replica, checkpoint_entries=4) as audit:
                for gallery in places:
                    await audit.log.record(Entry("SearchService/Search", "key:x", gallery))

    run(work())


def verdict_of(catalog: Catalog, *galleries: str) -> Verdict:
    with catalog.connect() as connection:
        return verify(connection, galleries=frozenset(galleries))


def rows_of(catalog: Catalog) -> list[tuple[UUID, int, str]]:
    columns = (audit_entries.c.chain_id, audit_entries.c.sequence, audit_entries.c.gallery)
    with catalog.connect() as connection:
        return [(row[0], row[1], row[2]) for row in connection.execute(select(*columns))]


@pytest.mark.parametrize("galleries", [("a",), ("b",), ("c",), ("a", "c"), ("nothing",)])
def test_the_counts_are_of_their_galleries(
    filled: None, catalog: Catalog, galleries: tuple[str, ...]
) -> None:
    own = [row for row in rows_of(catalog) if row[2] in galleries]
    stated = audit_checkpoints.c
    with catalog.connect() as connection:
        rows = connection.execute(select(stated.chain_id, stated.sequence))
        signed = [(row.chain_id, row.sequence) for row in rows]
    vouching = {
        (chain, min(made for of, made in signed if of == chain and made >= sequence))
        for chain, sequence, _ in own
    }
    verdict = verdict_of(catalog, *galleries)
    assert (verdict.chains, verdict.entries, verdict.unsigned_entries, verdict.faults) == (
        len({chain for chain, *_ in own}), len(own), 0, [],
    )  # fmt: skip
    assert verdict.checkpoints == len(vouching)


def test_entries_after_the_last_checkpoint_are_not_signed(
    audited: Callable[..., Any], run: Any, catalog: Catalog
) -> None:
    async def work() -> tuple[Verdict, Verdict]:
        async with audited(checkpoint_entries=100) as audit:
            for gallery in ("a", "b", "a", "a"):
                await audit.log.record(Entry("SearchService/Search", "key:x", gallery))
            return verdict_of(catalog, "a"), verdict_of(catalog, "b")

    first, second = run(work())
    assert (first.entries, first.unsigned_entries, first.checkpoints) == (3, 3, 0)
    assert (second.entries, second.unsigned_entries) == (1, 1)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(index=st.integers(0, 1000), gallery=st.sampled_from(["a", "b", "c"]))
def test_whatever_is_altered_is_said_and_only_their_own_is_named(
    filled: None, catalog: Catalog, index: int, gallery: str
) -> None:
    rows = rows_of(catalog)
    chain, sequence, place = rows[index % len(rows)]
    mine = {(each.hex, number) for each, number, of in rows if of == gallery}
    with catalog._write_engine.connect() as connection:
        here = (audit_entries.c.chain_id == chain, audit_entries.c.sequence == sequence)
        connection.execute(update(audit_entries).where(*here).values(principal="key:y"))
        everything = verify(connection).faults
        told = verify(connection, galleries={gallery})
        connection.rollback()
    assert everything
    assert told.faults
    named = {(fault.chain_id, fault.sequence) for fault in told.faults} - {("", 0)}
    assert named == {(chain.hex, sequence)} & mine
    others = [fault for fault in told.faults if (fault.chain_id, fault.sequence) == ("", 0)]
    assert [fault.description for fault in others] == ([] if place == gallery else [ELSEWHERE])
    assert told.entries == len(mine)
