"""The first entry of a chain: whose it is, its policy, and which chains were before.

Each process begins a chain of its own, so that nobody waits for another process and a catalog that
was set back never makes two chains of one. The first entry names the end of every chain that no
other first entry names yet, and of this replica's own as its data directory knows it; one that went
on after it was named is named again. So whoever removes a whole chain, or its end, contradicts the
chain after it; the newest alone is known to anchors only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from resight import __version__
from service.audit.chain import Head, beginning
from service.audit.checkpoints import Checkpoint, sign
from service.audit.entry import CHAIN_BEGAN, Entry
from service.audit.linking import linked
from service.catalog import audit as statements
from service.signing import SigningKey

__all__ = ["begin_chain", "first_entry", "missing_end", "named_ends", "open_ends"]

logger = logging.getLogger(__name__)

MAX_NAMED = 200


def begin_chain(
    connection: Connection,
    *,
    replica: str,
    key: SigningKey,
    own: Head | None,
    policy: Mapping[str, Any],
    now: datetime,
    after: Sequence[Entry] = (),
) -> Checkpoint:
    """Store the first entry of a new chain, and perhaps others, signed; returns what was signed.

    Args:
        connection: In a transaction.
        replica: Name of the process.
        key: Signs.
        own: The end of this replica's last chain, as it knows it.
        policy: What is in force.
        now: The time of the entries.
        after: What follows the first.
    """
    missing = missing_end(connection, own)
    before = open_ends(connection)
    if missing is not None:
        before = [end for end in before if end.chain_id != missing.chain_id] + [missing]
    entries = [first_entry(replica, key.signer, before, missing, policy), *after]
    texts = [(entry.columns(), entry.body(now)) for entry in entries]
    head, rows = linked(beginning(uuid4()), texts, now)
    statements.add_signer(connection, key.signer, key.public_pem, now)
    statements.add(connection, rows)
    made = sign(key, head, now)
    statements.add_checkpoints(connection, [made])
    return made


def first_entry(
    replica: str, signer: str, before: list[Head], missing: Head | None, policy: Mapping[str, Any]
) -> Entry:
    """The first entry.

    Args:
        replica: Name of the process.
        signer: Who signs the chain.
        before: Ends of chains.
        missing: The end of this replica's last chain, when the catalog lacks it.
        policy: Settings that govern what may be done and how long it is kept.
    """
    facts: dict[str, Any] = {
        "replica": replica,
        "version": __version__,
        "signer": signer,
        "before": [_named(head) for head in before],
        "policy": dict(policy),
    }
    if missing is not None:
        facts["missing"] = _named(missing)
    return Entry(CHAIN_BEGAN, facts=facts)


def named_ends(body: str) -> list[Head]:
    """The ends of chains that a first entry names.

    Raises:
        ValueError: it is no first entry.
    """
    try:
        return [
            Head(UUID(hex=each["chain"]), int(each["sequence"]), bytes.fromhex(each["digest"]))
            for each in json.loads(body)["before"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no first entry: {error!r}") from error


def open_ends(connection: Connection) -> list[Head]:
    """The ends of the chains that no first entry names, or names as they were before."""
    ends: dict[UUID, int] = {}
    named: dict[UUID, int] = {}
    for chain_id, sequence, first in statements.ends_and_firsts(connection):
        ends[chain_id] = sequence
        if first is not None:
            try:
                for end in named_ends(first):
                    named[end.chain_id] = max(end.sequence, named.get(end.chain_id, 0))
            except ValueError:  # altered; verification says so
                logger.error("the first entry of audit chain %s is damaged", chain_id)
    found = sorted(each for each, sequence in ends.items() if sequence > named.get(each, 0))
    if len(found) > MAX_NAMED:
        logger.warning("%d audit chains have open ends; %d are named", len(found), MAX_NAMED)
    heads = [statements.head_of(connection, each) for each in found[:MAX_NAMED]]
    return [head for head in heads if head is not None]


def missing_end(connection: Connection, own: Head | None) -> Head | None:
    """The end of this replica's last chain, if the catalog does not have it."""
    if own is None:
        return None
    stored = statements.entry_at(connection, own.chain_id, own.sequence)
    if stored is not None and stored.digest == own.digest:
        return None
    kept = statements.bases(connection, own.chain_id)
    return None if any(base.sequence >= own.sequence for base in kept) else own


def _named(head: Head) -> dict[str, Any]:
    return {
        "chain": head.chain_id.hex,
        "sequence": head.sequence,
        "digest": head.digest.hex(),
    }
