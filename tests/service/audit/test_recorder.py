"""What is recorded of a call, when, and what a caller is told if it cannot be."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from resight.errors import PermissionDenied, Unavailable
from service import call as call_in_progress
from service.access.gate import Gate, OpenDoor
from service.audit.chain import following
from service.audit.denials import Denials, host_of
from service.audit.entry import Entry
from service.audit.verifying import verify
from service.call import Call
from service.catalog import audit as statements
from service.catalog.audit import StoredEntry
from service.domain.principal import LOCAL, Principal


class Breaking:
    """Stands before a writer, and fails while it is told to; after the commit if ``late``."""

    def __init__(self, writer: Any) -> None:
        self.broken = False
        self.late = False
        self._writer = writer

    def change(self, apply: Any, **options: Any) -> Any:
        if not self.broken:
            return self._writer.change(apply, **options)
        if self.late:
            self._writer.change(apply, **options).result()
        raise Unavailable("the disk is full")


class Holding:
    """Stands before a writer, and holds the first change until it is told what becomes of it."""

    def __init__(self, writer: Any) -> None:
        self.held: Future[Any] | None = None
        self._apply: Any = None
        self._writer = writer

    def change(self, apply: Any, **options: Any) -> Any:
        if self.held is not None:
            return self._writer.change(apply, **options)
        self.held, self._apply = Future(), apply
        return self.held

    def go_on(self, *, fails: bool) -> None:
        assert self.held is not None
        if fails:
            self.held.set_exception(Unavailable("the disk is full"))
        else:
            self.held.set_result(self._writer.change(self._apply).result())


def breaking(audit: Any) -> Breaking:
    audit.log._writer = Breaking(audit.log._writer)
    writer: Breaking = audit.log._writer
    return writer


def call(method: str, **values: Any) -> Call:
    return Call("grpc", method, peer="ipv4:10.0.0.9:555", principal=LOCAL, admitted=True, **values)


@pytest.fixture
def events(query: Any) -> Callable[[], list[tuple[str, str, str]]]:
    def found() -> list[tuple[str, str, str]]:
        rows = query("SELECT body FROM audit_entries ORDER BY chain_id, sequence")
        said = [json.loads(body) for (body,) in rows]
        return [
            (each["action"], each.get("event", ""), each.get("outcome", ""))
            for each in said
            if not each["action"].startswith("audit/")
        ]

    return found


def test_a_search_whose_record_fails_is_not_answered(
    audited: Callable[..., Any], run: Any, events: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            writer = breaking(audit)
            writer.broken = True
            with pytest.raises(Unavailable) as caught:
                await audit.recorder.ended(call("SearchService/Search"), "OK")
            assert caught.value.reason == "AUDIT_UNAVAILABLE"
            writer.broken = False
            await audit.recorder.ended(call("SearchService/Search"), "OK")

    run(work())
    # That it was asked is known all the same.
    assert sorted(events()) == [
        ("SearchService/Search", "call", "OK"),
        ("SearchService/Search", "call", "UNAVAILABLE"),
    ]


def test_a_change_that_cannot_be_recorded_does_not_begin(
    audited: Callable[..., Any], run: Any, events: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            writer = breaking(audit)
            writer.broken = True
            with pytest.raises(Unavailable):
                await audit.recorder.began(call("GalleryService/DeleteCrop"), streams=False)
            writer.broken = False

    run(work())
    assert events() == []


def test_a_change_that_happened_is_told_and_its_end_follows(
    audited: Callable[..., Any], run: Any, events: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            writer = breaking(audit)
            deletion = call("GalleryService/DeleteCrop")
            await audit.recorder.began(deletion, streams=False)
            writer.broken = True
            await audit.recorder.ended(deletion, "OK")
            writer.broken = False

    run(work())
    assert events() == [
        ("GalleryService/DeleteCrop", "began", ""),
        ("GalleryService/DeleteCrop", "ended", "OK"),
    ]


def limited_stream() -> Call:
    """Of somebody who may see one gallery."""
    limited = Principal("key:1", "key", frozenset({"ingest"}), galleries=frozenset({"site-a"}))
    stream = call("GalleryService/IngestCrops")
    stream.principal = limited
    call_in_progress.begin(stream)
    return stream


def places(query: Any) -> list[tuple[str, str]]:
    rows = query("SELECT body FROM audit_entries WHERE action = 'GalleryService/IngestCrops'")
    said = [json.loads(body) for (body,) in rows]
    return sorted((each["event"], each["gallery"]) for each in said)


def test_a_stream_all_of_whose_messages_are_refused_ends_where_it_began(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            stream = limited_stream()
            for number, gallery in enumerate(("site-b", "site-c")):
                with pytest.raises(PermissionDenied):
                    call_in_progress.enter_gallery(gallery)
                if not number:
                    await audit.recorder.began(stream, streams=True)
            await audit.recorder.ended(stream, "OK")

    run(work())
    assert places(query) == [("began", "site-b"), ("ended", "site-b")]


def test_a_gallery_is_told_of_its_own_parts_alone(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            stream = limited_stream()
            call_in_progress.enter_gallery("site-a")
            await audit.recorder.began(stream, streams=True)
            call_in_progress.found_gallery("site-a")
            for _ in range(3):
                stream.count("accepted", "site-a")
            stream.note_fault("IMAGE_BROKEN", "site-a")
            for _ in range(2):
                stream.note_fault("GALLERY_NOT_ALLOWED", "site-b", denied=True)
            stream.note_fault("INVALID_ARGUMENT", "no name")
            stream.note_fault("INVALID_ARGUMENT", call_in_progress.UNREAD)
            stream.note_fault("GALLERY_NOT_FOUND", "site-d")
            call_in_progress.found_gallery("site-d")
            stream.count("accepted", "site-d")
            await audit.recorder.ended(stream, "OK")

    run(work())
    rows = query("SELECT body FROM audit_entries WHERE action = 'GalleryService/IngestCrops'")
    said = [json.loads(body) for (body,) in rows]
    assert len(said) == 5
    assert {each["gallery"]: each["notes"] for each in said if each["event"] == "ended"} == {
        "site-a": {"accepted": 3, "failed": 1, "reasons": ["IMAGE_BROKEN"]},
        "site-b": {"failed": 2, "denied": 2, "reasons": ["GALLERY_NOT_ALLOWED"]},
        "site-d": {"accepted": 1, "failed": 1, "reasons": ["GALLERY_NOT_FOUND"]},
        "": {"failed": 2, "reasons": ["INVALID_ARGUMENT"]},
    }


def test_names_without_end_make_few_entries(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            stream = limited_stream()
            with pytest.raises(PermissionDenied):
                call_in_progress.enter_gallery("first")
            await audit.recorder.began(stream, streams=True)
            for number in range(100):
                stream.note_fault("GALLERY_NOT_ALLOWED", f"site-{number}", denied=True)
            stream.note_fault("GALLERY_NOT_ALLOWED", "first", denied=True)
            await audit.recorder.ended(stream, "OK")

    run(work())
    rows = query("SELECT body FROM audit_entries WHERE action = 'GalleryService/IngestCrops'")
    ended = [each for each in (json.loads(body) for (body,) in rows) if each["event"] == "ended"]
    assert len(ended) <= 10
    assert sum(each["notes"]["denied"] for each in ended) == 101
    assert [each["notes"]["denied"] for each in ended if each["gallery"] == "first"] == [1]


def test_a_commit_whose_answer_was_lost_leaves_the_chain_whole(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            writer = breaking(audit)
            for late in (True, False, True):
                writer.broken, writer.late = True, late
                with pytest.raises(Unavailable):
                    await audit.log.record(Entry("a/lost"))
                writer.broken = False
                await audit.log.record(Entry("a/kept"))

    run(work())
    rows = query("SELECT sequence, action FROM audit_entries ORDER BY sequence")
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    assert [row[1] for row in rows].count("a/kept") == 3
    assert [row[1] for row in rows].count("a/lost") == 2


def test_an_entry_that_somebody_else_added_is_not_continued_and_signed(
    audited: Callable[..., Any], run: Any, catalog: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            body = Entry("SearchService/Search", "key:other").body(audit_time(audit))
            head = following(audit.log.head, body)
            forged = StoredEntry(
                head.chain_id, head.sequence, audit_time(audit), "key:other",
                "SearchService/Search", "", body, head.digest,
            )  # fmt: skip
            await catalog.change(lambda connection: statements.add(connection, [forged]))
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await audit.log.record(Entry("a/b"))
            # The chain cannot be ended either; a new process begins another.
            audit.log._running.cancel()
            await asyncio.wait([audit.log._running])
            audit.log._running = None

    def audit_time(audit: Any) -> Any:
        return audit.log._clock.now()

    run(work())


def test_a_failure_answers_who_waits_and_too_many_are_refused(
    audited: Callable[..., Any], run: Any
) -> None:
    async def work() -> None:
        async with audited(max_waiting=5, wait_seconds=30) as audit:
            results = await asyncio.gather(
                *(audit.log.record(Entry("a/b")) for _ in range(8)), return_exceptions=True
            )
        refused = [each for each in results if isinstance(each, Unavailable)]
        assert len(refused) == 3
        assert all(each.reason == "AUDIT_UNAVAILABLE" for each in refused)

    run(work())


def test_a_call_that_the_caller_left_is_recorded_once(
    audited: Callable[..., Any], run: Any, events: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            left = call("SearchService/Search")
            ending = asyncio.create_task(audit.recorder.ended(left, "OK"))
            await asyncio.sleep(0)
            ending.cancel()
            await asyncio.wait([ending])
            await audit.recorder.ended(left, "CANCELLED")

    run(work())
    assert events() == [("SearchService/Search", "call", "OK")]


async def given_up(
    audit: Any, deletion: Call, begin: Callable[..., Any] | None = None
) -> tuple[Holding, asyncio.Task[None]]:
    """A change whose caller leaves while its beginning waits behind another entry."""
    writer = audit.log._writer = Holding(audit.log._writer)
    before = asyncio.create_task(audit.log.record(Entry("audit/before")))
    deadline = time.monotonic() + 60
    while writer.held is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    beginning = asyncio.create_task((begin or audit.recorder.began)(deletion, streams=False))
    while not len(audit.log._queue):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    beginning.cancel()
    await asyncio.wait([beginning])
    assert beginning.cancelled()
    return writer, before


@pytest.mark.parametrize("fails", [False, True])
def test_a_change_that_was_given_up_does_not_begin_after_its_end(
    audited: Callable[..., Any], run: Any, events: Any, fails: bool
) -> None:
    async def work() -> None:
        async with audited() as audit:
            deletion = call("GalleryService/DeleteCrop")
            writer, before = await given_up(audit, deletion)
            ending = asyncio.create_task(audit.recorder.ended(deletion, "CANCELLED"))
            await asyncio.sleep(0)
            writer.go_on(fails=fails)
            await asyncio.wait([ending, before])
            assert (before.exception() is not None) is fails
            ending.result()

    run(work())
    assert events() == [("GalleryService/DeleteCrop", "call", "CANCELLED")]


@pytest.mark.parametrize("leaves", [False, True])
def test_what_was_let_in_and_could_not_begin_is_not_called_refused(
    audited: Callable[..., Any], run: Any, query: Any, leaves: bool
) -> None:
    """The audit is away, or the caller leaves while the beginning is stored."""

    async def work() -> None:
        async with audited() as audit:
            gate = Gate(OpenDoor(), recorders=[audit.recorder])
            deletion = call("GalleryService/DeleteCrop")
            deletion.admitted = False
            gate.admit(deletion)
            if leaves:
                held, before = await given_up(audit, deletion, gate.announce)
                held.go_on(fails=False)
                await before
                await gate.leave(deletion, "CANCELLED")
            else:
                writer = breaking(audit)
                writer.broken = True
                with pytest.raises(Unavailable) as caught:
                    await gate.announce(deletion)
                writer.broken = False
                deletion.fail(caught.value)
                await gate.leave(deletion, "UNAVAILABLE")
            late = call("GalleryService/DeleteCrop")
            late.admitted = False
            await gate.leave(late, "PERMISSION_DENIED")

    run(work())
    rows = query("SELECT body FROM audit_entries WHERE action = 'GalleryService/DeleteCrop'")
    said = {each["outcome"]: each for each in (json.loads(body) for (body,) in rows)}
    outcome = "CANCELLED" if leaves else "UNAVAILABLE"
    assert said.keys() == {outcome, "PERMISSION_DENIED"}
    assert said[outcome]["event"] == "call"
    assert "refused" not in said[outcome]
    assert said["PERMISSION_DENIED"]["refused"] is True


def test_what_was_given_up_is_not_waited_for_to_try_again(
    audited: Callable[..., Any], run: Any, events: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            writer, before = await given_up(audit, call("GalleryService/DeleteCrop"))
            writer.go_on(fails=True)
            await asyncio.wait([before])
            assert isinstance(before.exception(), Unavailable)
            # Nobody calls, and still it becomes known that it can be written again.
            deadline = time.monotonic() + 60
            while audit.log._failures:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    run(work())
    assert events() == []


def test_refused_strangers_are_summed_up(ticking: Any, run: Any) -> None:
    owed: list[Entry] = []

    async def work() -> None:
        denials = Denials(owed.append, ticking, max_peers=3)
        for number in range(10):
            for port in range(7):
                denials.add(f"ipv4:10.0.0.{number}:{port}", "UNAUTHENTICATED",
                            reason="CREDENTIALS_MISSING", principal="",
                            method="SearchService/Search", protocol="grpc")  # fmt: skip
        denials.flush()
        denials.flush()

    run(work())
    attempts: dict[str, int] = {}
    for entry in owed:
        peer = entry.facts["peer"]
        attempts[peer] = attempts.get(peer, 0) + entry.facts["attempts"]
    assert attempts == {"10.0.0.0": 7, "10.0.0.1": 7, "10.0.0.2": 7, "(others)": 49}
    assert len(owed) == 2 * 4


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.1.2.3:99", "10.1.2.3"),
        ("ipv6:%5B::1%5D:99", "::1"),
        ("10.1.2.3:99", "10.1.2.3"),
        ("::1:99", "::1"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_a_peer_is_its_address_without_the_port(peer: str, host: str) -> None:
    assert host_of(peer) == host


def test_a_full_disk_or_a_database_that_only_reads_stops_answers_and_nothing_else(
    audited: Callable[..., Any], run: Any, catalog: Any, database_url: str, query: Any
) -> None:
    breaks, mends = {
        True: ("PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000"),
        False: (
            "SET default_transaction_read_only = on",
            "SET default_transaction_read_only = off",
        ),
    }[database_url.startswith("sqlite")]
    large = {"notes": {"text": "x" * 20_000}}

    async def work() -> int:
        async with audited() as audit:

            async def execute(statement: str) -> None:
                change = audit._writer.writer.change(
                    lambda connection: connection.exec_driver_sql(statement) and None
                )
                await asyncio.wrap_future(change)

            await execute(breaks)
            stored = 0

            async def fill() -> None:
                nonlocal stored
                for _ in range(100):
                    await audit.log.record(Entry("a/b", facts=large))
                    stored += 1

            with pytest.raises(Unavailable, match=r"full|read-only"):
                await fill()
            deletion = call("GalleryService/DeleteCrop", gallery="x" * 64)
            deletion.note(text="x" * 20_000)
            with pytest.raises(Unavailable):
                await audit.recorder.began(deletion, streams=False)
            await execute(mends)
            await audit.log.record(Entry("a/b", facts=large))
            return stored + 1

    stored = run(work())
    assert query("SELECT count(*) FROM audit_entries WHERE action = 'a/b'") == [(stored,)]
    with catalog.connect() as connection:
        assert verify(connection).faults == []
