"""Statements about API keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update

from service.catalog.governance_models import api_keys
from service.domain.api_key import ApiKey
from service.domain.crop import TimeRange

__all__ = [
    "StoredKey",
    "count_valid",
    "find_key",
    "insert_key",
    "keys_version",
    "list_keys",
    "revoke_key",
    "valid_keys",
]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key with the digest of its text and its place in the listing."""

    key_row: int
    secret_sha256: bytes
    key: ApiKey


def insert_key(connection: Connection, key: ApiKey, *, secret_sha256: bytes) -> None:
    """Store a new key."""
    connection.execute(
        insert(api_keys).values(
            key_id=key.key_id,
            secret_sha256=secret_sha256,
            display_name=key.display_name,
            scopes=list(key.scopes),
            galleries=list(key.galleries),
            camera_ids=list(key.camera_ids),
            start_time=key.capture_range.start_time,
            end_time=key.capture_range.end_time,
            requests_per_minute=key.requests_per_minute,
            requests_per_day=key.requests_per_day,
            create_time=key.create_time,
            expire_time=key.expire_time,
            creator=key.creator,
        )
    )


def find_key(connection: Connection, key_id: str) -> StoredKey | None:
    """One key."""
    row = connection.execute(select(api_keys).where(api_keys.c.key_id == key_id)).first()
    return None if row is None else _stored(row)


def list_keys(connection: Connection, *, before: int | None, limit: int) -> list[StoredKey]:
    """Keys from the newest, beginning below a row."""
    statement = select(api_keys).order_by(api_keys.c.key_row.desc()).limit(limit)
    if before is not None:
        statement = statement.where(api_keys.c.key_row < before)
    return [_stored(row) for row in connection.execute(statement)]


def revoke_key(connection: Connection, key_id: str, *, now: datetime) -> StoredKey | None:
    """Revoke a key unless it is; returns it, or None when there is none."""
    mine = api_keys.c.key_id == key_id
    connection.execute(
        update(api_keys).where(mine, api_keys.c.revoke_time.is_(None)).values(revoke_time=now)
    )
    return find_key(connection, key_id)


def count_valid(connection: Connection, *, now: datetime) -> int:
    """How many keys are neither revoked nor expired."""
    statement = select(func.count()).select_from(api_keys).where(*_valid(now))
    return int(connection.execute(statement).scalar_one())


def keys_version(connection: Connection) -> tuple[int, int, int]:
    """Changes with every key that is made or revoked: keys are never removed, nor revoked twice."""
    row = connection.execute(
        select(func.count(), func.max(api_keys.c.key_row), func.count(api_keys.c.revoke_time))
    ).one()
    return row[0], row[1] or 0, row[2]


def valid_keys(connection: Connection, *, now: datetime) -> list[StoredKey]:
    """Every key that is neither revoked nor expired."""
    rows = connection.execute(select(api_keys).where(*_valid(now)))
    return [_stored(row) for row in rows]


def _valid(now: datetime) -> tuple[Any, Any]:
    unexpired = or_(api_keys.c.expire_time.is_(None), api_keys.c.expire_time > now)
    return api_keys.c.revoke_time.is_(None), unexpired


def _stored(row: Any) -> StoredKey:
    key = ApiKey(
        key_id=row.key_id,
        display_name=row.display_name,
        scopes=tuple(row.scopes),
        galleries=tuple(row.galleries),
        camera_ids=tuple(row.camera_ids),
        capture_range=TimeRange(row.start_time, row.end_time),
        requests_per_minute=row.requests_per_minute,
        requests_per_day=row.requests_per_day,
        create_time=row.create_time,
        expire_time=row.expire_time,
        creator=row.creator,
        revoke_time=row.revoke_time,
    )
    return StoredKey(row.key_row, bytes(row.secret_sha256), key)
