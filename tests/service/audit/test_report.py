"""What a report tells of entries and of a verdict."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any

import pytest

from resight.errors import Unavailable
from service.audit.chain_check import Fault
from service.audit.entry import Entry
from service.audit.reading import CatalogAudit
from service.audit.report import Tally, Told, html_page
from service.audit.verifying import Verdict
from service.call import Call
from service.catalog.audit import Selection
from service.domain.principal import LOCAL

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class Holding:
    """Stands before a writer, and holds the first change until it may go on."""

    def __init__(self, writer: Any) -> None:
        self.held: Future[Any] | None = None
        self._apply: Any = None
        self._writer = writer

    def change(self, apply: Any, **options: Any) -> Any:
        if self.held is not None:
            return self._writer.change(apply, **options)
        self.held, self._apply = Future(), apply
        return self.held

    def go_on(self) -> None:
        assert self.held is not None
        self.held.set_result(self._writer.change(self._apply).result())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("ab12", 7, "its digest is wrong"), " in chain ab12 at entry 7: its digest is wrong"),
        (Fault("", 0, "the stored public key of x is not its key"),
         ": the stored public key of x is not its key"),
    ],
)  # fmt: skip
def test_a_fault_without_a_place_has_none_in_the_report(fault: Fault, said: str) -> None:
    verdict = Verdict()
    verdict.faults.append(fault)
    page = html_page(Told("data", NOON, None, None, verdict), Tally(), [])
    found = re.search(r'class="wrong">The audit is not sound: 1 faults, the first(.*?)</p>', page)
    assert found is not None
    assert found[1] == said


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "waiting"])
def test_a_search_that_waited_too_long_counts_once_as_refused(
    audited: Callable[..., Any], run: Any, catalog: Any, is_taken: bool
) -> None:
    """A search whose entry a change has taken, or that waits behind such a change."""

    def search() -> Call:
        asked = Call("grpc", "SearchService/Search", principal=LOCAL, admitted=True)
        asked.note(matches=5, denied=2, reasons=["CAMERA_NOT_ALLOWED"])
        return asked

    async def work() -> None:
        async with audited(wait_seconds=0.2) as audit:
            holding = audit.log._writer = Holding(audit.log._writer)
            before: asyncio.Task[None] | None = None
            if not is_taken:
                before = asyncio.create_task(audit.log.record(Entry("a/b")))
                deadline = time.monotonic() + 60
                while holding.held is None:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.001)
            with pytest.raises(Unavailable):
                await audit.recorder.ended(search(), "OK")
            if before is not None:
                await asyncio.wait([before])
                assert isinstance(before.exception(), Unavailable)
            holding.go_on()
        async with audited() as audit:
            await audit.recorder.ended(search(), "OK")

    run(work())
    wanted = Selection()
    with catalog.connect() as connection:
        source = CatalogAudit(connection)
        entries = [each for each in source.entries(wanted) if each.action != "a/b"]
        tally = Tally()
        tally.add_all(entries)
        tally.take_back(entries)
    outcomes = [each.said["outcome"] for each in entries if "outcome" in each.said]
    assert sorted(outcomes) == ["OK", "OK", "UNAVAILABLE"][0 if is_taken else 1 :]
    tables = {table.name: table.rows for table in tally.tables()}
    [[*_, answered, refused, matches, _, _]] = tables["searches"]
    # Each of the two entries that count says what it found.
    assert (answered, refused, matches) == ("1", "1", "10")
    [[*_, attempts]] = tables["denied"]
    assert attempts == "4"


@pytest.mark.parametrize(
    ("notes", "counts"),
    [
        ({"queries": 1, "failed": 1}, ("1", "1")),
        ({"failed": 2, "denied": 2}, ("0", "2")),
    ],
)
def test_a_call_all_of_whose_parts_were_refused_is_not_answered(
    audited: Callable[..., Any], run: Any, catalog: Any, notes: dict[str, int], counts: Any
) -> None:
    """Also where its answer was refused afterwards, and counts once."""

    async def work() -> None:
        async with audited() as audit:
            for request, outcome in (("1", "OK"), ("2", "OK"), ("2", "UNAVAILABLE")):
                facts = {"event": "call", "request_id": request, "outcome": outcome, "notes": notes}
                await audit.log.record(Entry("SearchService/SearchBatch", facts=facts))

    run(work())
    tally = Tally()
    with catalog.connect() as connection:
        entries = list(CatalogAudit(connection).entries(Selection()))
    tally.add_all(entries)
    tally.take_back(entries)
    [[*_, answered, refused, _, _, _]] = {t.name: t.rows for t in tally.tables()}["searches"]
    assert (answered, refused) == counts
