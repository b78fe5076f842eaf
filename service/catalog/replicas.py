"""Statements about the processes that serve one PostgreSQL: who lives, and how far each has come.

Times are the database's, so that no machine's own clock decides who is alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Connection, cast, delete, func, select, update
from sqlalchemy import type_coerce as coerce
from sqlalchemy.dialects.postgresql import insert

from service.catalog.database_clock import database_now
from service.catalog.models import changes, replica_positions, replicas
from service.domain.instant import to_micros

__all__ = [
    "Standing",
    "age_of_change",
    "all_replicas",
    "beat",
    "forget",
    "register",
    "report",
    "unregister",
]


class Standing(NamedTuple):
    """A replica as the database knows it.

    Args:
        replica_id: Its id.
        name: Its name.
        heartbeat: When it was last heard of.
        age_seconds: Seconds since, by the database's clock.
        position: Up to which change of the gallery asked for its indexes are; -1 when it has not
            said, or no gallery was asked for.
    """

    replica_id: UUID
    name: str
    heartbeat: datetime
    age_seconds: float
    position: int = -1


def register(connection: Connection, replica_id: UUID, name: str, schema_revision: str) -> None:
    """Make a replica known, with the schema its code was made for; it has told no position yet."""
    own = replica_positions.c.replica_id == replica_id
    connection.execute(delete(replica_positions).where(own))
    now = database_now()
    statement = insert(replicas).values(
        replica_id=replica_id,
        name=name,
        start_time=now,
        heartbeat_time=now,
        schema_revision=schema_revision,
    )
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[replicas.c.replica_id],
            set_={
                "heartbeat_time": now,
                "start_time": now,
                "name": name,
                "schema_revision": schema_revision,
            },
        )
    )


def beat(connection: Connection, replica_id: UUID) -> bool:
    """Say that a replica lives; False when it is not known (any longer)."""
    statement = update(replicas).where(replicas.c.replica_id == replica_id)
    return bool(connection.execute(statement.values(heartbeat_time=database_now())).rowcount)


def report(connection: Connection, replica_id: UUID, positions: Mapping[int, int]) -> None:
    """Say up to which change a replica's indexes are, by gallery."""
    statement = insert(replica_positions)
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=[replica_positions.c.replica_id, replica_positions.c.gallery_row],
            set_={"position": statement.excluded.position},
        ),
        [
            {"replica_id": replica_id, "gallery_row": gallery_row, "position": position}
            for gallery_row, position in sorted(positions.items())
        ],
    )


def all_replicas(connection: Connection, gallery_row: int | None = None) -> list[Standing]:
    """Every replica that is known, dead ones included, with its position in a gallery."""
    age = cast(database_now(), BigInteger) - cast(replicas.c.heartbeat_time, BigInteger)
    there = replica_positions.c.replica_id == replicas.c.replica_id
    rows = connection.execute(
        select(
            replicas.c.replica_id,
            replicas.c.name,
            replicas.c.heartbeat_time,
            coerce(age, BigInteger),
            func.coalesce(replica_positions.c.position, -1),
        )
        .outerjoin(replica_positions, there & (replica_positions.c.gallery_row == gallery_row))
        .order_by(replicas.c.name, replicas.c.replica_id)
    )
    return [Standing(row[0], row[1], row[2], row[3] / 1e6, row[4]) for row in rows]


def unregister(connection: Connection, replica_id: UUID) -> None:
    """Forget a replica that serves no longer."""
    connection.execute(delete(replicas).where(replicas.c.replica_id == replica_id))


def forget(connection: Connection, *, dead_seconds: float) -> list[str]:
    """Forget replicas that were not heard of for so long; returns their names."""
    silent = cast(database_now(), BigInteger) - cast(replicas.c.heartbeat_time, BigInteger)
    statement = delete(replicas).where(coerce(silent, BigInteger) > int(dead_seconds * 1e6))
    return list(connection.execute(statement.returning(replicas.c.name)).scalars())


def age_of_change(connection: Connection, gallery_row: int, position: int) -> float | None:
    """Seconds since a change, by the database's clock."""
    made = connection.execute(
        select(changes.c.create_time, database_now()).where(
            changes.c.gallery_row == gallery_row, changes.c.position == position
        )
    ).first()
    return None if made is None else (to_micros(made[1]) - to_micros(made[0])) / 1e6
