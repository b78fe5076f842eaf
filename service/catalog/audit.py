"""Statements about the audit: chains, checkpoints and the keys that confirm them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Row,
    and_,
    delete,
    func,
    insert,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from service.audit.chain import Head
from service.audit.checkpoints import BASE, Checkpoint
from service.catalog.models import audit_checkpoints, audit_entries, audit_signers

__all__ = [
    "BLOCK",
    "Selection",
    "StoredEntry",
    "add",
    "add_checkpoints",
    "add_signer",
    "all_checkpoints",
    "all_entries",
    "anchored",
    "bases",
    "chains",
    "ends_and_firsts",
    "entry_at",
    "head_of",
    "listed",
    "not_anchored",
    "older_than",
    "remove_until",
    "signers",
]

BLOCK = 2000
# Made once: every call adds an entry.
_ADD = insert(audit_entries)


class StoredEntry(NamedTuple):
    """An entry as it is stored."""

    chain_id: UUID
    sequence: int
    record_time: datetime
    principal: str
    action: str
    gallery: str
    body: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries: of a gallery, of a principal, from a time on, before a time, of an action."""

    gallery: str = ""
    principal: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None
    action: str = ""


def _every_chain() -> CTE:
    """Ids of chains in order, each found by a look-up from the one before; the last is null."""
    least = select(audit_entries.c.chain_id).order_by(audit_entries.c.chain_id).limit(1)
    found = select(least.scalar_subquery().label("chain_id")).cte("found", recursive=True)
    after = least.where(audit_entries.c.chain_id > found.c.chain_id).correlate(found)
    return found.union_all(select(after.scalar_subquery()).where(found.c.chain_id.is_not(None)))


_CHAINS = _every_chain()
_COLUMNS = tuple(audit_entries.c[name] for name in StoredEntry._fields)
_STATED = tuple(audit_checkpoints.c[name] for name in Checkpoint.__dataclass_fields__)


def add(connection: Connection, entries: Sequence[StoredEntry]) -> None:
    """Store entries."""
    connection.execute(_ADD, [entry._asdict() for entry in entries])


def add_checkpoints(connection: Connection, checkpoints: Sequence[Checkpoint]) -> None:
    """Store statements; one that is there already stays."""
    for made in checkpoints:
        here = and_(
            audit_checkpoints.c.chain_id == made.chain_id,
            audit_checkpoints.c.sequence == made.sequence,
            audit_checkpoints.c.kind == made.kind,
        )
        if connection.execute(select(audit_checkpoints.c.sequence).where(here)).first() is None:
            values = {name: getattr(made, name) for name in Checkpoint.__dataclass_fields__}
            connection.execute(insert(audit_checkpoints).values(**values))


def add_signer(connection: Connection, signer: str, public_key: str, now: datetime) -> None:
    """Make a public key known, unless it is; replicas that share one may begin at the same time."""
    known = select(audit_signers.c.signer).where(audit_signers.c.signer == signer)
    if connection.execute(known).first() is not None:
        return
    made = insert(audit_signers).values(signer=signer, public_key=public_key, create_time=now)
    with suppress(IntegrityError), connection.begin_nested():
        connection.execute(made)


def signers(connection: Connection) -> dict[str, str]:
    """Every public key, PEM, by signer."""
    wanted = select(audit_signers.c.signer, audit_signers.c.public_key)
    rows = connection.execute(wanted.order_by(audit_signers.c.signer))
    return {row.signer: row.public_key for row in rows}


def head_of(connection: Connection, chain_id: UUID) -> Head | None:
    """The newest stored entry of a chain."""
    row = connection.execute(
        select(audit_entries.c.sequence, audit_entries.c.digest)
        .where(audit_entries.c.chain_id == chain_id)
        .order_by(audit_entries.c.sequence.desc())
        .limit(1)
    ).first()
    return None if row is None else Head(chain_id, row.sequence, bytes(row.digest))


def chains(connection: Connection) -> list[UUID]:
    """Every chain of which entries are stored, found without reading the entries."""
    wanted = select(_CHAINS.c.chain_id).where(_CHAINS.c.chain_id.is_not(None))
    return list(connection.execute(wanted.order_by(_CHAINS.c.chain_id)).scalars())


def ends_and_firsts(connection: Connection) -> Iterator[tuple[UUID, int, str | None]]:
    """Of every chain, in no order, its newest sequence, and its first entry's body unless that is
    removed: one statement with three look-ups a chain, whatever their length.
    """
    here = audit_entries.c.chain_id == _CHAINS.c.chain_id
    newest = select(audit_entries.c.sequence).where(here)
    newest = newest.order_by(audit_entries.c.sequence.desc()).limit(1)
    first = select(audit_entries.c.body).where(here, audit_entries.c.sequence == 1)
    wanted = select(
        _CHAINS.c.chain_id,
        newest.correlate(_CHAINS).scalar_subquery().label("sequence"),
        first.correlate(_CHAINS).scalar_subquery().label("body"),
    ).where(_CHAINS.c.chain_id.is_not(None))
    streamed = wanted.execution_options(stream_results=True, yield_per=BLOCK)
    for row in connection.execute(streamed):
        yield row.chain_id, row.sequence, row.body


def entry_at(connection: Connection, chain_id: UUID, sequence: int) -> StoredEntry | None:
    """One entry."""
    here = and_(audit_entries.c.chain_id == chain_id, audit_entries.c.sequence == sequence)
    row = connection.execute(select(*_COLUMNS).where(here)).first()
    return None if row is None else _entry(row)


def all_entries(
    connection: Connection, chain_id: UUID | None = None, until: int | None = None
) -> Iterator[StoredEntry]:
    """Every entry, or those of a chain, or its first: chain by chain, in sequence."""
    wanted = select(*_COLUMNS).order_by(audit_entries.c.chain_id, audit_entries.c.sequence)
    if chain_id is not None:
        wanted = wanted.where(audit_entries.c.chain_id == chain_id)
    if until is not None:
        wanted = wanted.where(audit_entries.c.sequence <= until)
    # Of the statement, not of the connection, which would keep them.
    streamed = wanted.execution_options(stream_results=True, yield_per=BLOCK)
    for row in connection.execute(streamed):
        yield _entry(row)


def all_checkpoints(connection: Connection) -> list[Checkpoint]:
    """Every statement, by chain and sequence."""
    return _checkpoints(connection)


def bases(connection: Connection, chain_id: UUID) -> list[Checkpoint]:
    """From where on a chain is kept."""
    wanted = (audit_checkpoints.c.chain_id == chain_id, audit_checkpoints.c.kind == BASE)
    return _checkpoints(connection, *wanted)


def not_anchored(connection: Connection, limit: int = BLOCK) -> list[Checkpoint]:
    """Statements that were not copied outside yet, oldest first."""
    wanted = select(*_STATED).where(audit_checkpoints.c.anchor_time.is_(None))
    rows = connection.execute(wanted.order_by(audit_checkpoints.c.record_time).limit(limit))
    return [_checkpoint(row) for row in rows]


def anchored(connection: Connection, copied: Sequence[Checkpoint], now: datetime) -> None:
    """Note that statements were copied outside."""
    for made in copied:
        connection.execute(
            update(audit_checkpoints)
            .where(
                audit_checkpoints.c.chain_id == made.chain_id,
                audit_checkpoints.c.sequence == made.sequence,
                audit_checkpoints.c.kind == made.kind,
            )
            .values(anchor_time=now)
        )


def listed(
    connection: Connection,
    wanted: Selection,
    *,
    after: tuple[datetime, UUID, int] | None,
    limit: int,
) -> list[StoredEntry]:
    """Entries by time, oldest first, then chain and sequence."""
    entries = audit_entries.c
    found = select(*_COLUMNS)
    if wanted.gallery:
        found = found.where(entries.gallery == wanted.gallery)
    if wanted.principal:
        found = found.where(entries.principal == wanted.principal)
    if wanted.action:
        found = found.where(entries.action == wanted.action)
    if wanted.start_time is not None:
        found = found.where(entries.record_time >= wanted.start_time)
    if wanted.end_time is not None:
        found = found.where(entries.record_time < wanted.end_time)
    order = (entries.record_time, entries.chain_id, entries.sequence)
    if after is not None:
        time, chain_id, sequence = after
        found = found.where(entries.record_time >= time)
        found = found.where(tuple_(*order) > tuple_(*_bound(time, chain_id, sequence)))
    return [_entry(row) for row in connection.execute(found.order_by(*order).limit(limit))]


def older_than(connection: Connection, chain_id: UUID, time: datetime) -> int:
    """The newest entry of a chain from before a time; 0 for none."""
    entries = audit_entries.c
    newest = select(func.max(entries.sequence)).where(
        entries.chain_id == chain_id, entries.record_time < time
    )
    return int(connection.execute(newest).scalar() or 0)


def remove_until(connection: Connection, base: Checkpoint) -> int:
    """Remove a chain up to a base, with the statements about what goes; returns entries."""
    entries, stated = audit_entries.c, audit_checkpoints.c
    gone = connection.execute(
        delete(audit_entries).where(
            entries.chain_id == base.chain_id, entries.sequence <= base.sequence
        )
    ).rowcount
    connection.execute(
        delete(audit_checkpoints).where(
            stated.chain_id == base.chain_id, stated.sequence < base.sequence
        )
    )
    return int(gone)


def _bound(time: datetime, chain_id: UUID, sequence: int) -> tuple[object, ...]:
    entries = audit_entries.c
    return (
        literal(time, entries.record_time.type),
        literal(chain_id, entries.chain_id.type),
        literal(sequence, entries.sequence.type),
    )


def _checkpoints(connection: Connection, *wanted: ColumnElement[bool]) -> list[Checkpoint]:
    order = (audit_checkpoints.c.chain_id, audit_checkpoints.c.sequence, audit_checkpoints.c.kind)
    rows = connection.execute(select(*_STATED).where(*wanted).order_by(*order))
    return [_checkpoint(row) for row in rows]


def _entry(row: Row[Any]) -> StoredEntry:
    found = StoredEntry._make(row)
    return found._replace(digest=bytes(found.digest))


def _checkpoint(row: Row[Any]) -> Checkpoint:
    found = Checkpoint(**row._mapping)
    return replace(found, digest=bytes(found.digest), signature=bytes(found.signature))
