"""Whatever is altered is found, and where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, insert, select, update

from service.audit.anchors import open_anchors
from service.audit.chain import Head, beginning, following
from service.audit.checkpoints import sign
from service.audit.entry import Entry
from service.audit.head_file import HEAD_FILE, HeadFile
from service.audit.verifying import Verdict, anchors_of, verify
from service.catalog.models import audit_checkpoints, audit_entries, audit_signers
from service.catalog.store import Catalog
from service.signing import PublicKeys, open_signing_key

# What the digests and signatures vouch for; when something was copied outside is a mere note.
_TEXTS = ("principal", "action", "gallery", "body")
_ENTRY_FIELDS = ("chain_id", "sequence", "record_time", "digest", *_TEXTS)
_CHECKPOINT_FIELDS = ("chain_id", "sequence", "kind", "record_time", "digest", "signer")


@pytest.fixture
def filled(audited: Callable[..., Any], run: Any) -> Callable[[], None]:
    """Two chains: one ended in order, one after it."""

    async def work() -> None:
        for replica, count in (("one", 9), ("two", 5)):
            async with audited(data=replica, replica=replica, checkpoint_entries=4) as audit:
                for number in range(count):
                    notes = {"matches": number, "cameras": ["c1", "c2"]}
                    facts = {"purpose": "theft", "outcome": "OK", "notes": notes}
                    await audit.log.record(Entry("SearchService/Search", "key:a", "g", facts))

    return lambda: run(work())


@contextmanager
def changed(catalog: Catalog) -> Iterator[Connection]:
    """Changes that are undone afterwards."""
    with catalog._write_engine.connect() as connection:
        yield connection
        connection.rollback()


def verdict_of(catalog: Catalog, **options: Any) -> Verdict:
    with catalog.connect() as connection:
        return verify(connection, **options)


def test_what_nobody_altered_is_sound(filled: Callable[[], None], catalog: Catalog) -> None:
    filled()
    verdict = verdict_of(catalog)
    assert verdict.faults == []
    assert (verdict.chains, verdict.entries, verdict.unsigned_entries) == (2, 9 + 5 + 4, 0)
    assert not verdict.keys_given
    assert len(verdict.signers) == 2
    assert verdict.checkpoints == 1 + 2 + 1 + 1 + 1 + 1


def flipped(value: Any, place: int, bit: int) -> Any:
    """The value with one bit of one byte (or of the number) another."""
    if isinstance(value, UUID):
        return UUID(bytes=flipped(value.bytes, place, bit))
    if isinstance(value, bytes | memoryview):
        data = bytearray(value)
        data[place % len(data)] ^= 1 << bit
        return bytes(data)
    if isinstance(value, str):
        if not value:
            return "x"
        at = place % len(value)
        # Stays text that every database takes.
        other = chr((ord(value[at]) ^ (1 << (bit % 5))) or 1)
        return value[:at] + other + value[at + 1 :]
    if isinstance(value, int):
        # Not onto a neighbour: the database would refuse that.
        return value ^ (1 << (4 + place % 36))
    return type(value).fromtimestamp(value.timestamp() + 1 + place, tz=value.tzinfo)


def test_one_altered_byte_anywhere_is_found_where_it_is(
    filled: Callable[[], None], catalog: Catalog
) -> None:
    filled()
    with catalog.connect() as connection:
        entries = connection.execute(select(audit_entries)).all()
        checkpoints = connection.execute(select(audit_checkpoints)).all()
    rows = [(audit_entries, row, name) for row in entries for name in _ENTRY_FIELDS]
    fields = (*_CHECKPOINT_FIELDS, "signature")
    rows += [(audit_checkpoints, row, name) for row in checkpoints for name in fields]

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.sampled_from(range(len(rows))), st.integers(0, 2**20), st.integers(0, 7))
    def one(index: int, place: int, bit: int) -> None:
        table, row, name = rows[index]
        keyed = [column == row._mapping[column.name] for column in table.primary_key.columns]
        value = flipped(row._mapping[name], place, bit)
        with changed(catalog) as connection:
            connection.execute(update(table).where(*keyed).values({name: value}))
            verdict = verify(connection)
        places = {(fault.chain_id, fault.sequence) for fault in verdict.faults}
        assert places, (table.name, name, row.sequence)
        if name in ("chain_id", "sequence"):
            return
        assert (row.chain_id.hex, row.sequence) in places, (name, verdict.faults)

    one()
    assert verdict_of(catalog).faults == []


def test_a_deleted_entry_in_the_middle_is_named(
    filled: Callable[[], None], catalog: Catalog
) -> None:
    filled()
    chain = chains(catalog)["one"]
    with changed(catalog) as connection:
        here = (audit_entries.c.chain_id == chain, audit_entries.c.sequence == 6)
        connection.execute(delete(audit_entries).where(*here))
        faults = verify(connection).faults
    assert [(fault.chain_id, fault.sequence) for fault in faults] == [(chain.hex, 6)]


def test_a_deleted_end_or_chain_contradicts_the_chain_after_it(
    filled: Callable[[], None], catalog: Catalog
) -> None:
    filled()
    chain = chains(catalog)["one"]
    for kept in (7, 0):
        with changed(catalog) as connection:
            for table in (audit_entries, audit_checkpoints):
                gone = (table.c.chain_id == chain, table.c.sequence > kept)
                connection.execute(delete(table).where(*gone))
            faults = verify(connection).faults
        assert (chain.hex, kept + 1) in {(fault.chain_id, fault.sequence) for fault in faults}


def test_entries_in_another_order_are_found(filled: Callable[[], None], catalog: Catalog) -> None:
    filled()
    chain = chains(catalog)["one"]
    entries = audit_entries.c
    with changed(catalog) as connection:
        for before, after in ((4, 1004), (5, 4), (1004, 5)):
            here = (entries.chain_id == chain, entries.sequence == before)
            connection.execute(update(audit_entries).where(*here).values(sequence=after))
        faults = verify(connection).faults
    assert min(fault.sequence for fault in faults) == 4


def rewritten(connection: Connection, chain: UUID, *, from_sequence: int) -> None:
    """What somebody with the database and without the key can do: all digests made anew."""
    entries = audit_entries.c
    rows = connection.execute(
        select(audit_entries).where(entries.chain_id == chain).order_by(entries.sequence)
    ).all()
    head = beginning(chain)
    for row in rows:
        body = row.body
        if row.sequence >= from_sequence:
            body = body.replace('"theft"', '"audit"')
        head = following(head, body)
        connection.execute(
            update(audit_entries)
            .where(entries.chain_id == chain, entries.sequence == row.sequence)
            .values(body=body, digest=head.digest)
        )


def test_a_chain_written_anew_without_the_key_is_found(
    filled: Callable[[], None], catalog: Catalog
) -> None:
    filled()
    chain = chains(catalog)["two"]
    with changed(catalog) as connection:
        rewritten(connection, chain, from_sequence=2)
        faults = verify(connection).faults
        assert {fault.chain_id for fault in faults} == {chain.hex}
        assert min(fault.sequence for fault in faults) <= 5
        # Without its checkpoints nobody vouches for it.
        connection.execute(delete(audit_checkpoints).where(audit_checkpoints.c.chain_id == chain))
        [fault] = verify(connection).faults
        assert fault.sequence == 1
        assert "vouches" in fault.description


def test_keys_that_the_verifier_brings_show_a_forged_signer(
    filled: Callable[[], None], catalog: Catalog, tmp_path: Path
) -> None:
    filled()
    with catalog.connect() as connection:
        pems = [row.public_key for row in connection.execute(select(audit_signers))]
    trusted = PublicKeys.of(pems)
    assert verdict_of(catalog, keys=trusted).faults == []
    assert verdict_of(catalog, keys=trusted).keys_given
    chain = chains(catalog)["two"]
    forger = open_signing_key(None, tmp_path / "forger")
    with changed(catalog) as connection:
        rewritten(connection, chain, from_sequence=2)
        now = connection.execute(select(audit_signers.c.create_time)).scalars().first()
        forged = {"signer": forger.signer, "public_key": forger.public_pem, "create_time": now}
        connection.execute(insert(audit_signers).values(**forged))
        rows = connection.execute(
            select(audit_checkpoints).where(audit_checkpoints.c.chain_id == chain)
        ).all()
        for row in rows:
            digest = connection.execute(
                select(audit_entries.c.digest).where(
                    audit_entries.c.chain_id == chain, audit_entries.c.sequence == row.sequence
                )
            ).scalar_one()
            made = sign(forger, Head(chain, row.sequence, bytes(digest)), row.record_time)
            connection.execute(
                update(audit_checkpoints)
                .where(
                    audit_checkpoints.c.chain_id == chain,
                    audit_checkpoints.c.sequence == row.sequence,
                )
                .values(digest=made.digest, signer=made.signer, signature=made.signature)
            )
        # The catalog's own keys include the forger's: that is why a verdict says whose they were.
        assert verify(connection).faults == []
        faults = verify(connection, keys=trusted).faults
    assert {fault.chain_id for fault in faults} == {chain.hex}
    assert "not trusted" in faults[0].description


def test_an_anchor_knows_of_an_end_that_was_deleted(
    audited: Callable[..., Any], run: Any, catalog: Catalog, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/anchors"

    async def work() -> None:
        async with audited(checkpoint_entries=2, anchor_url=url) as audit:
            for _ in range(6):
                await audit.log.record(Entry("a/b"))

    run(work())
    anchors = anchors_of(open_anchors(url).all())
    assert len(anchors) == verdict_of(catalog).checkpoints == 5
    assert verdict_of(catalog, anchors=anchors).faults == []
    with changed(catalog) as connection:
        for table in (audit_entries, audit_checkpoints):
            connection.execute(delete(table).where(table.c.sequence > 4))
        # It is the newest chain, so nothing in the catalog contradicts it.
        assert verify(connection).faults == []
        [fault] = verify(connection, anchors=anchors).faults
        assert fault.sequence == 5
        assert "an anchor" in fault.description
        # Nor if all of it is gone.
        for table in (audit_entries, audit_checkpoints):
            connection.execute(delete(table))
        assert verify(connection).faults == []
        [fault] = verify(connection, anchors=anchors).faults
        assert fault.sequence == 1


def test_anchors_that_fail_are_made_up_for(
    audited: Callable[..., Any], run: Any, catalog: Catalog, tmp_path: Path, query: Any
) -> None:
    place = tmp_path / "anchors"
    url = f"file://{place}"
    place.write_text("a file where the folder should be")

    async def work() -> None:
        async with audited(checkpoint_entries=2, anchor_url=url) as audit:
            for _ in range(4):
                await audit.log.record(Entry("a/b"))

    run(work())
    left = "SELECT count(*) FROM audit_checkpoints WHERE anchor_time IS NULL"
    assert query(left) == [(4,)]
    place.unlink()
    run(work())
    assert query(left) == [(0,)]
    anchors = anchors_of(open_anchors(url).all())
    assert len(anchors) == verdict_of(catalog).checkpoints == 8


def chains(catalog: Catalog) -> dict[str, UUID]:
    """The chains by replica."""
    with catalog.connect() as connection:
        rows = connection.execute(
            select(audit_entries.c.chain_id, audit_entries.c.body).where(
                audit_entries.c.sequence == 1
            )
        ).all()
    return {json.loads(row.body)["replica"]: row.chain_id for row in rows}


def test_the_end_of_the_newest_chain_is_missed_by_the_replica_that_wrote_it(
    filled: Callable[[], None], catalog: Catalog, tmp_path: Path
) -> None:
    filled()
    head = HeadFile(tmp_path / "two" / HEAD_FILE).read()
    assert head is not None
    assert verdict_of(catalog, heads=[head]).faults == []
    with changed(catalog) as connection:
        for table in (audit_entries, audit_checkpoints):
            there = (table.c.chain_id == head.chain_id) & (table.c.sequence > 2)
            connection.execute(delete(table).where(there))
        # Nobody else knows of it: not even that it was signed.
        assert verify(connection).faults == []
        (fault,) = verify(connection, heads=[head]).faults
        assert (fault.chain_id, fault.sequence) == (head.chain_id.hex, 3)
        for table in (audit_entries, audit_checkpoints):
            connection.execute(delete(table).where(table.c.chain_id == head.chain_id))
        assert verify(connection).faults == []
        faults = verify(connection, heads=[head]).faults
        assert {each.chain_id for each in faults} == {head.chain_id.hex}
