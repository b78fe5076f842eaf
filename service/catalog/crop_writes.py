"""Statements that store crops with their vectors, and delete them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select

from resight.errors import NotFound
from service.catalog.change_log import (
    generation_of,
    give_back_positions,
    log_crops,
    position_added,
    take_positions,
)
from service.catalog.models import (
    CHANGE_CROP_ADDED,
    CHANGE_CROP_DELETED,
    blob_removals,
    crops,
    embeddings,
)
from service.catalog.records import CropInsert, InsertOutcome, InsertStatus
from service.domain.identifier import image_key

__all__ = ["delete_crop", "forget_blob_removals", "insert_crops"]

_Key = tuple[bytes, int, datetime, str]


class _Instance(NamedTuple):
    crop_id: UUID
    blob_id: UUID


def insert_crops(
    connection: Connection, inserts: Sequence[CropInsert], *, now: datetime
) -> list[InsertOutcome]:
    """Store crops with their vectors; outcomes are aligned with ``inserts``.

    Earlier items win: of two equal crops the second is a duplicate of the first.
    """
    outcomes: dict[int, InsertOutcome] = {}
    groups: dict[int, list[int]] = {}
    for index, item in enumerate(inserts):
        groups.setdefault(item.gallery_row, []).append(index)
    # In one order everywhere, so that two writers cannot wait for each other.
    for gallery_row in sorted(groups):
        indexes = groups[gallery_row]
        found = _insert_into_gallery(
            connection, gallery_row, [inserts[index] for index in indexes], now
        )
        outcomes.update(zip(indexes, found, strict=True))
    return [outcomes[index] for index in range(len(inserts))]


def _insert_into_gallery(
    connection: Connection, gallery_row: int, items: Sequence[CropInsert], now: datetime
) -> list[InsertOutcome]:
    # The lock comes first: what is read below cannot change until the commit.
    newest = take_positions(connection, gallery_row, len(items))
    generation = generation_of(connection, gallery_row)
    keys, ids = _stored(connection, gallery_row, items)
    outcomes: list[InsertOutcome] = []
    fresh: list[CropInsert] = []
    for item in items:
        key = _key(item)
        if key in keys and keys[key].blob_id == item.blob_id:
            # Its own commit, whose answer was lost: what lies in the blob store is its image.
            position = position_added(connection, gallery_row, item.crop.crop_id)
            outcomes.append(InsertOutcome(InsertStatus.INSERTED, item.crop.crop_id, position))
        elif item.generation != generation:
            outcomes.append(InsertOutcome(InsertStatus.OUTDATED, item.crop.crop_id))
        elif key in keys:
            outcomes.append(InsertOutcome(InsertStatus.DUPLICATE, keys[key].crop_id))
        elif item.crop.crop_id in ids:
            outcomes.append(InsertOutcome(InsertStatus.ID_CONFLICT, item.crop.crop_id))
        else:
            keys[key] = _Instance(item.crop.crop_id, item.blob_id)
            ids.add(item.crop.crop_id)
            fresh.append(item)
            position = newest - len(items) + len(fresh)
            outcomes.append(InsertOutcome(InsertStatus.INSERTED, item.crop.crop_id, position))
    if len(fresh) < len(items):
        give_back_positions(connection, gallery_row, len(items) - len(fresh))
    if fresh:
        first = newest - len(items) + 1
        _store(connection, gallery_row, fresh, now)
        log_crops(
            connection,
            gallery_row,
            CHANGE_CROP_ADDED,
            [item.crop.crop_id for item in fresh],
            first,
            now,
        )
    return outcomes


def _stored(
    connection: Connection, gallery_row: int, items: Sequence[CropInsert]
) -> tuple[dict[_Key, _Instance], set[UUID]]:
    """The stored crops that the items could be equal to, or share an id with."""
    columns = (
        crops.c.crop_id,
        crops.c.blob_id,
        crops.c.sha256,
        crops.c.camera_row,
        crops.c.capture_time,
        crops.c.track_id,
    )
    same_digest = connection.execute(
        select(*columns).where(
            crops.c.gallery_row == gallery_row,
            crops.c.sha256.in_({item.crop.sha256 for item in items}),
        )
    )
    keys = {
        (bytes(row.sha256), row.camera_row, row.capture_time, row.track_id): _Instance(
            row.crop_id, row.blob_id
        )
        for row in same_digest
    }
    same_id = connection.execute(
        select(crops.c.crop_id).where(
            crops.c.gallery_row == gallery_row,
            crops.c.crop_id.in_({item.crop.crop_id for item in items}),
        )
    )
    return keys, set(same_id.scalars())


def _key(item: CropInsert) -> _Key:
    return (item.crop.sha256, item.camera_row, item.crop.capture_time, item.crop.track_id)


def _store(
    connection: Connection, gallery_row: int, items: Sequence[CropInsert], now: datetime
) -> None:
    connection.execute(
        insert(crops),
        [
            {
                "gallery_row": item.gallery_row,
                "crop_id": item.crop.crop_id,
                "camera_row": item.camera_row,
                "capture_time": item.crop.capture_time,
                "track_id": item.crop.track_id,
                "zone": item.crop.zone,
                "attributes": dict(item.crop.attributes),
                "sha256": item.crop.sha256,
                "blob_id": item.blob_id,
                "create_time": now,
            }
            for item in items
        ],
    )
    # To have them returned in order, SQLite's driver would take one statement a row.
    ids = [item.crop.crop_id for item in items]
    stored = connection.execute(
        select(crops.c.crop_id, crops.c.crop_row).where(
            crops.c.gallery_row == gallery_row, crops.c.crop_id.in_(ids)
        )
    )
    rows = {row.crop_id: row.crop_row for row in stored}
    connection.execute(
        insert(embeddings),
        [
            {
                "crop_row": rows[item.crop.crop_id],
                "model_row": model_row,
                "vector": vector.astype("<f4", copy=False).tobytes(),
            }
            for item in items
            for model_row, vector in item.vectors.items()
        ],
    )


def delete_crop(
    connection: Connection, gallery_row: int, crop_id: UUID, *, gallery: str, now: datetime
) -> str:
    """Delete a crop and its vectors, and remember that its image must go; returns its blob key.

    Raises:
        NotFound: there is no such crop.
    """
    position = take_positions(connection, gallery_row, 1)
    row = connection.execute(
        select(crops.c.crop_row, crops.c.blob_id).where(
            crops.c.gallery_row == gallery_row, crops.c.crop_id == crop_id
        )
    ).first()
    if row is None:
        raise NotFound(
            f"crop {crop_id} is not in the gallery", field="crop_id", reason="CROP_NOT_FOUND"
        )
    connection.execute(delete(embeddings).where(embeddings.c.crop_row == row.crop_row))
    connection.execute(delete(crops).where(crops.c.crop_row == row.crop_row))
    log_crops(connection, gallery_row, CHANGE_CROP_DELETED, [crop_id], position, now)
    key = image_key(gallery, row.blob_id)
    connection.execute(insert(blob_removals).values(blob_key=key, create_time=now))
    return key


def forget_blob_removals(connection: Connection, keys: Iterable[str]) -> None:
    """Note that these images are gone from the blob store."""
    connection.execute(delete(blob_removals).where(blob_removals.c.blob_key.in_(list(keys))))
