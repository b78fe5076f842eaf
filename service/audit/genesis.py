"""The first entry of a chain: whose it is, its policy, and which chains were before.

Each process begins a chain of its own, so that nobody waits for another process and a catalog that
was set back never makes two chains of one. The first entry names the end of every chain that no
other first entry names yet, and of this replica's own as its data directory knows it. So whoever
removes a whole chain, or its end, contradicts the chain after it; the newest alone is known to
anchors only.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from resight import __version__
from service.audit.chain import Head
from service.audit.entry import CHAIN_BEGAN, Entry
from service.catalog import audit as statements

__all__ = ["first_entry", "missing_end", "named_ends", "open_ends"]

logger = logging.getLogger(__name__)

MAX_NAMED = 200


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
    """The ends of the chains that no first entry names."""
    known = statements.chains(connection)
    named: set[UUID] = set()
    for chain_id in known:
        first = statements.entry_at(connection, chain_id, 1)
        if first is not None:
            try:
                named.update(head.chain_id for head in named_ends(first.body))
            except ValueError:  # altered; verification says so
                logger.error("the first entry of audit chain %s is damaged", chain_id)
    ends = [statements.head_of(connection, each) for each in known if each not in named]
    found = [end for end in ends if end is not None]
    if len(found) > MAX_NAMED:
        logger.warning("%d audit chains have open ends; %d are named", len(found), MAX_NAMED)
    return found[:MAX_NAMED]


def missing_end(connection: Connection, own: Head | None) -> Head | None:
    """The end of this replica's last chain, if the catalog does not have it."""
    if own is None:
        return None
    stored = statements.entry_at(connection, own.chain_id, own.sequence)
    if stored is not None and stored.digest == own.digest:
        return None
    for base in statements.bases(connection):
        if base.chain_id == own.chain_id and base.sequence >= own.sequence:
            return None
    return own


def _named(head: Head) -> dict[str, Any]:
    return {
        "chain": head.chain_id.hex,
        "sequence": head.sequence,
        "digest": head.digest.hex(),
    }
