"""The chain as it is written: by the equation, whole, signed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from resight.errors import Unavailable
from service.audit.entry import Entry
from service.signing import PublicKeys


def test_entries_follow_the_published_equation(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            await asyncio.gather(
                *(
                    audit.log.record(Entry("a/b", "somebody", "g", {"notes": {"n": n, "é": "ü"}}))
                    for n in range(40)
                )
            )

    run(work())
    rows = query(
        "SELECT chain_id, sequence, body, digest FROM audit_entries ORDER BY chain_id, sequence"
    )
    assert len({bytes(row[0]) for row in rows}) == 1
    assert [row[1] for row in rows] == list(range(1, 43))
    before = hashlib.sha256(b"resight audit chain 1" + bytes(rows[0][0])).digest()
    for chain, sequence, body, digest in rows:
        whole = before + bytes(chain) + sequence.to_bytes(8, "big") + body.encode()
        before = hashlib.sha256(whole).digest()
        assert bytes(digest) == before
    bodies = [json.loads(row[2]) for row in rows]
    assert bodies[0]["action"] == "audit/began"
    assert bodies[-1]["action"] == "audit/ended"
    assert sorted(body["notes"]["n"] for body in bodies[1:-1]) == list(range(40))


def test_entries_that_wait_share_a_change(audited: Callable[..., Any], run: Any) -> None:
    async def work() -> int:
        async with audited() as audit:
            changes = 0
            change = audit.log._writer.change

            def counted(apply: Any, **options: Any) -> Any:
                nonlocal changes
                changes += 1
                return change(apply, **options)

            audit.log._writer = type("Counted", (), {"change": staticmethod(counted)})
            await asyncio.gather(*(audit.log.record(Entry("a/b")) for _ in range(100)))
            return changes

    assert run(work()) <= 3


def test_checkpoints_are_signed_every_few_entries_and_at_the_end(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited(checkpoint_entries=3) as audit:
            for _ in range(7):
                await audit.log.record(Entry("a/b"))

    run(work())
    rows = query("SELECT sequence FROM audit_checkpoints ORDER BY sequence")
    assert [row[0] for row in rows] == [1, 4, 7, 9]
    [(signer, pem)] = query("SELECT signer, public_key FROM audit_signers")
    keys = PublicKeys.of([pem])
    signed = query(
        "SELECT chain_id, sequence, record_time, digest, signature FROM audit_checkpoints"
    )
    for chain, sequence, micros, digest, signature in signed:
        message = b"resight audit checkpoint 1" + b"head\0" + bytes(chain)
        message += sequence.to_bytes(8, "big") + micros.to_bytes(8, "big") + bytes(digest)
        assert keys.verify(message, bytes(signature), signer)


def test_a_checkpoint_comes_after_a_while_without_more_entries(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited(checkpoint_seconds=0.05) as audit:
            await audit.log.record(Entry("a/b"))
            while True:
                found = query("SELECT max(sequence) FROM audit_checkpoints")
                if found == [(2,)]:
                    return
                await asyncio.sleep(0.02)

    run(asyncio.wait_for(work(), 120))


def test_text_that_is_none_is_stored_and_harms_nobody(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            await audit.log.record(Entry("a/b", "a\0b\ud800", "g", {"notes": {"\0": "\ud801"}}))

    run(work())
    [(principal, body)] = query("SELECT principal, body FROM audit_entries WHERE sequence = 2")
    assert json.loads(body)["principal"] == principal
    assert "\0" not in body


def test_what_is_too_long_loses_its_notes_and_says_so(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            await audit.log.record(Entry("a/b", facts={"notes": {"x": "y" * 100_000}}))

    run(work())
    [(body,)] = query("SELECT body FROM audit_entries WHERE sequence = 2")
    assert json.loads(body)["notes_left_out"] is True
    assert len(body) < 1000


@pytest.mark.parametrize("note", [float("nan"), {1, 2}, b"bytes"])
def test_a_note_that_is_no_json_costs_no_entry(
    audited: Callable[..., Any], run: Any, query: Any, note: object
) -> None:
    async def work() -> None:
        async with audited() as audit:
            await audit.log.record(Entry("a/b", facts={"notes": {"x": note}, "outcome": "OK"}))
            await audit.log.record(Entry("a/c"))

    run(work())
    rows = query("SELECT body FROM audit_entries WHERE action IN ('a/b', 'a/c') ORDER BY sequence")
    first, second = [json.loads(body) for (body,) in rows]
    assert (first["outcome"], second["action"]) == ("OK", "a/c")
    assert (first["notes"], first["notes_left_out"]) == ({}, True)


def test_a_change_that_failed_is_tried_again_though_nobody_calls(
    audited: Callable[..., Any], run: Any, query: Any
) -> None:
    async def work() -> None:
        async with audited() as audit:
            writer, before = audit.log._writer, audit.log.head

            def broken(*_: Any, **__: Any) -> Any:
                raise Unavailable("the disk is full")

            audit.log._writer = type("Broken", (), {"change": staticmethod(broken)})
            with pytest.raises(Unavailable):
                await audit.log.record(Entry("a/b"))
            assert audit.log.head == before
            audit.log._writer = writer
            for _ in range(2400):
                if audit.log.head != before:
                    break
                await asyncio.sleep(0.05)

    run(work())
    rows = query("SELECT body FROM audit_entries ORDER BY chain_id, sequence")
    bodies = [json.loads(row[0]) for row in rows]
    assert [body["action"] for body in bodies] == ["audit/began", "audit/failed", "audit/ended"]
    assert bodies[1]["notes"] == {"entries": 1}
