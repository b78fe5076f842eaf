"""Entries put behind the end of a chain, as one change of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from resight.errors import FailedPrecondition
from service.audit.chain import Head, following
from service.catalog import audit as statements
from service.catalog.audit import StoredEntry

__all__ = ["Writer", "linked", "stored_head"]

T = TypeVar("T")


class Writer(Protocol):
    """Runs changes one after the other, on another thread."""

    def change(
        self,
        apply: Callable[[Connection], T],
        *,
        committed: Callable[[T], None] | None = None,
    ) -> Future[T]:
        """Run ``apply`` in a transaction, perhaps more than once, and, on the same thread,
        ``committed``; resolves after both.
        """
        ...


def linked(
    head: Head, texts: Sequence[tuple[dict[str, str], str]], now: datetime
) -> tuple[Head, list[StoredEntry]]:
    """The head after these, and their rows.

    Args:
        head: What they follow.
        texts: The columns and the body of each.
        now: Their time.
    """
    rows = []
    for columns, body in texts:
        head = following(head, body)
        rows.append(
            StoredEntry(
                chain_id=head.chain_id,
                sequence=head.sequence,
                record_time=now,
                body=body,
                digest=head.digest,
                **columns,
            )
        )
    return head, rows


def stored_head(connection: Connection, head: Head, attempted: set[Head]) -> Head:
    """Where the chain ends after changes that may have failed.

    Raises:
        FailedPrecondition: at an entry that is not ours, which must not be continued and signed.
    """
    found = statements.head_of(connection, head.chain_id)
    if found is None or (found != head and found not in attempted):
        raise FailedPrecondition(
            f"audit chain {head.chain_id} was changed by somebody else after entry "
            f"{head.sequence}; run `resight audit verify`, then start the service again: it begins "
            "a new chain",
            field="audit",
            reason="AUDIT_ALTERED",
        )
    return found
