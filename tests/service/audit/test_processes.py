"""Which processes and policies a report of a time names, compared with when they ran."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete

from resight.errors import PermissionDenied
from resight.v1 import admin_service_pb2 as messages
from service.audit.entry import Entry
from service.audit.processes import Processes
from service.audit.reading import CatalogAudit, ReadEntry, ServiceAudit
from service.audit.span import Span
from service.catalog.audit import Selection
from service.catalog.models import audit_entries
from service.catalog.store import Catalog

Times = dict[str, tuple[datetime, datetime]]


@pytest.fixture
def ran(audited: Callable[..., Any], run: Any, ticking: Any) -> Times:
    """Three processes one after the other, with gaps of a minute: when each ran."""
    times: Times = {}

    async def work() -> None:
        for name in ("one", "two", "three"):
            ticking.time += timedelta(minutes=1)
            began = ticking.time
            async with audited(
                data=name, replica=name, clock=ticking, record_matches=name == "two"
            ) as audit:
                await audit.log.record(Entry("SearchService/Search", "key:x", "a"))
                ticking.time += timedelta(minutes=1)
            times[name] = began, ticking.time

    run(work())
    return times


def told(catalog: Catalog, span: Span, active: frozenset[str] = frozenset()) -> dict[str, Any]:
    with catalog.connect() as connection:
        found = Processes(span)
        found.read(CatalogAudit(connection), active)
    return {table.name: table for table in found.tables()}


def names(tables: dict[str, Any], table: str = "processes") -> set[str]:
    return {row[1] for row in tables[table].rows}


def test_whoever_ran_within_the_time_is_named(catalog: Catalog, ran: Times) -> None:
    around = timedelta(seconds=10)
    points = [time + shift for pair in ran.values() for time in pair for shift in (-around, around)]
    for start in (None, *points):
        for end in (None, *points):
            if start is not None and end is not None and start >= end:
                continue
            expected = {
                name
                for name, (began, ended) in ran.items()
                if (end is None or began < end) and (start is None or ended > start)
            }
            tables = told(catalog, Span(start, end))
            assert names(tables) == expected
            assert names(tables, "policies") == expected
            matched = {
                row[1]: row[3] for row in tables["policies"].rows if row[2] == "record_matches"
            }
            assert matched == {name: str(name == "two").lower() for name in expected}
            ends = {row[1]: bool(row[5]) for row in tables["processes"].rows}
            assert ends == {name: end is None or ran[name][1] < end for name in expected}


def test_who_was_killed_counts_until_its_successor_begins(catalog: Catalog, ran: Times) -> None:
    with catalog._write_engine.begin() as connection:
        connection.execute(delete(audit_entries).where(audit_entries.c.action == "audit/ended"))
    # None of the names comes again: none is known to be gone.
    assert names(told(catalog, Span(ran["three"][0], None))) == {"one", "two", "three"}


def test_a_successor_of_the_name_ends_a_killed_one(
    audited: Callable[..., Any], run: Any, ticking: Any, catalog: Catalog
) -> None:
    chains: list[str] = []

    async def work() -> None:
        for data in ("first", "second"):
            ticking.time += timedelta(minutes=1)
            async with audited(data=data, replica="same", clock=ticking) as audit:
                chains.append(audit.log.head.chain_id.hex)

    run(work())
    with catalog._write_engine.begin() as connection:
        connection.execute(delete(audit_entries).where(audit_entries.c.action == "audit/ended"))
    later = Span(ticking.time + timedelta(minutes=1), None)
    assert [row[3] for row in told(catalog, later)["processes"].rows] == chains[1:]
    # What it recorded itself shows that it lived.
    seen = told(catalog, later, frozenset(chains[:1]))["processes"].rows
    assert [row[3] for row in seen] == chains


def test_a_beginning_that_was_removed_is_said(catalog: Catalog, ran: Times) -> None:
    with catalog.connect() as connection:
        [first, *_] = CatalogAudit(connection).entries(Selection(action="audit/began"))
    with catalog._write_engine.begin() as connection:
        here = (audit_entries.c.chain_id == UUID(hex=first.chain_id), audit_entries.c.sequence == 1)
        connection.execute(delete(audit_entries).where(*here))
    tables = told(catalog, Span(), frozenset([first.chain_id]))
    [lost] = [row for row in tables["processes"].rows if row[3] == first.chain_id]
    assert lost[0] == ""
    assert "removed" in lost[4]


class Refused:
    """An audit that the caller may read of galleries alone."""

    def entries(self, _wanted: Selection) -> Iterator[ReadEntry]:
        raise PermissionDenied("key:x may read the audit of its galleries alone", field="gallery")


def test_whoever_may_not_read_of_no_gallery_is_told_so() -> None:
    found = Processes(Span())
    found.read(Refused(), frozenset())  # type: ignore[arg-type]  # half a source
    for table in found.tables():
        assert not table.rows
        assert table.note.startswith("not shown: ")


def test_a_service_that_knows_no_actions_gives_all_and_those_wanted_are_kept() -> None:
    actions = ["audit/began", "SearchService/Search", "audit/ended", "audit/began"]
    page = messages.ListAuditEntriesResponse(
        entries=[
            messages.AuditEntry(action=action, sequence=number, body="{}")
            for number, action in enumerate(actions)
        ]
    )
    channel: Any = SimpleNamespace(admin=SimpleNamespace(ListAuditEntries=lambda _: page))
    found = ServiceAudit(channel).entries(Selection(action="audit/began"))
    assert [entry.sequence for entry in found] == [0, 3]
    assert len(list(ServiceAudit(channel).entries(Selection()))) == len(actions)
