"""Every statement that changes the catalog, each on a connection inside a transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.sql.dml import ReturningInsert

from resight.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted
from service.catalog.models import (
    CHANGE_CAMERA_ADDED,
    CHANGE_CROP_ADDED,
    CHANGE_CROP_DELETED,
    blob_removals,
    cameras,
    changes,
    crops,
    embeddings,
    galleries,
    models,
)
from service.catalog.records import (
    CameraRecord,
    CropInsert,
    GalleryRecord,
    InsertOutcome,
    InsertStatus,
)
from service.domain.crop import Camera
from service.domain.identifier import image_key

__all__ = [
    "create_camera",
    "delete_crop",
    "ensure_gallery",
    "forget_blob_removals",
    "insert_crops",
]

LIVE = "live"

_Key = tuple[bytes, int, datetime, str]


def ensure_gallery(
    connection: Connection,
    name: str,
    *,
    model_version: str,
    dimension: int,
    now: datetime,
    max_galleries: int,
) -> GalleryRecord:
    """Create the gallery when it is not there, and make the given model its live one.

    Raises:
        FailedPrecondition: the gallery holds vectors of another model.
        ResourceExhausted: there are ``max_galleries`` already.
    """
    found = connection.execute(
        select(galleries.c.gallery_row).where(galleries.c.name == name)
    ).scalar()
    if found is None:
        if connection.execute(select(func.count()).select_from(galleries)).scalar_one() >= (
            max_galleries
        ):
            raise ResourceExhausted(
                f"there are {max_galleries} galleries already; raise limits.max_galleries",
                field="gallery",
                reason="TOO_MANY_GALLERIES",
            )
        found = _insert_row(
            connection,
            insert(galleries)
            .values(name=name, position=0, create_time=now)
            .returning(galleries.c.gallery_row),
        )
    model_row = _ensure_model(connection, found, name, model_version, dimension, now)
    return GalleryRecord(found, name, model_row, model_version, dimension)


def _ensure_model(
    connection: Connection, gallery_row: int, name: str, version: str, dimension: int, now: datetime
) -> int:
    rows = connection.execute(select(models).where(models.c.gallery_row == gallery_row)).all()
    same = next((row for row in rows if row.version == version), None)
    live = next((row for row in rows if row.state == LIVE), None)
    if same is not None and same.dimension != dimension:
        raise FailedPrecondition(
            f"gallery {name!r} knows model {version} with {same.dimension} values a vector, but "
            f"the bundle has {dimension}; the bundle was not written by resight",
            field="bundle",
        )
    if live is not None and live.version != version and _has_vectors(connection, live.model_row):
        raise FailedPrecondition(
            f"gallery {name!r} holds vectors of model {live.version}, but the bundle is {version}; "
            "vectors of two models are never comparable. Serve the bundle of the gallery's model, "
            "or begin with an empty data directory (--data) and ingest the crops again",
            field="bundle",
            reason="MODEL_VERSION_MISMATCH",
        )
    if live is not None and same is not None and live.model_row == same.model_row:
        return int(same.model_row)
    if live is not None:
        connection.execute(
            update(models).where(models.c.model_row == live.model_row).values(state="retired")
        )
    if same is not None:
        connection.execute(
            update(models).where(models.c.model_row == same.model_row).values(state=LIVE)
        )
        return int(same.model_row)
    return _insert_row(
        connection,
        insert(models)
        .values(
            gallery_row=gallery_row,
            version=version,
            dimension=dimension,
            state=LIVE,
            create_time=now,
        )
        .returning(models.c.model_row),
    )


def _has_vectors(connection: Connection, model_row: int) -> bool:
    statement = select(embeddings.c.crop_row).where(embeddings.c.model_row == model_row).limit(1)
    return connection.execute(statement).first() is not None


def create_camera(
    connection: Connection, gallery_row: int, camera: Camera, *, now: datetime, max_cameras: int
) -> CameraRecord:
    """Store a camera; the same definition again returns the stored one.

    Raises:
        AlreadyExists: the id is taken by a different definition.
        ResourceExhausted: the gallery has ``max_cameras`` already.
    """
    position = _take_positions(connection, gallery_row, 1)
    row = connection.execute(
        select(cameras).where(
            cameras.c.gallery_row == gallery_row, cameras.c.camera_id == camera.camera_id
        )
    ).first()
    if row is not None:
        if (row.display_name, row.zone) != (camera.display_name, camera.zone):
            raise AlreadyExists(
                f"camera {camera.camera_id} is registered with display_name "
                f"{row.display_name!r} and zone {row.zone!r}; use another camera_id",
                field="camera.camera_id",
                reason="CAMERA_EXISTS",
            )
        _give_back_positions(connection, gallery_row, 1)
        stored = Camera(row.camera_id, row.display_name, row.zone, row.create_time)
        return CameraRecord(row.camera_row, stored)
    statement = select(func.count()).select_from(cameras)
    count = connection.execute(statement.where(cameras.c.gallery_row == gallery_row)).scalar_one()
    if count >= max_cameras:
        raise ResourceExhausted(
            f"the gallery has {max_cameras} cameras already; raise limits.max_cameras",
            field="camera.camera_id",
            reason="TOO_MANY_CAMERAS",
        )
    camera_row = _insert_row(
        connection,
        insert(cameras)
        .values(
            gallery_row=gallery_row,
            camera_id=camera.camera_id,
            display_name=camera.display_name,
            zone=camera.zone,
            create_time=now,
        )
        .returning(cameras.c.camera_row),
    )
    connection.execute(
        insert(changes).values(
            gallery_row=gallery_row,
            position=position,
            kind=CHANGE_CAMERA_ADDED,
            camera_row=camera_row,
            create_time=now,
        )
    )
    return CameraRecord(camera_row, Camera(camera.camera_id, camera.display_name, camera.zone, now))


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
    newest = _take_positions(connection, gallery_row, len(items))
    keys, ids = _stored(connection, gallery_row, items)
    outcomes: list[InsertOutcome] = []
    fresh: list[CropInsert] = []
    for item in items:
        key = _key(item)
        if key in keys:
            outcomes.append(InsertOutcome(InsertStatus.DUPLICATE, keys[key]))
        elif item.crop.crop_id in ids:
            outcomes.append(InsertOutcome(InsertStatus.ID_CONFLICT, item.crop.crop_id))
        else:
            keys[key] = item.crop.crop_id
            ids.add(item.crop.crop_id)
            fresh.append(item)
            outcomes.append(InsertOutcome(InsertStatus.INSERTED, item.crop.crop_id))
    if len(fresh) < len(items):
        _give_back_positions(connection, gallery_row, len(items) - len(fresh))
    if fresh:
        first = newest - len(items) + 1
        _store(connection, fresh, now)
        _log_crops(
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
) -> tuple[dict[_Key, UUID], set[UUID]]:
    """The stored crops that the items could be equal to, or share an id with."""
    columns = (
        crops.c.crop_id,
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
        (bytes(row.sha256), row.camera_row, row.capture_time, row.track_id): row.crop_id
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


def _store(connection: Connection, items: Sequence[CropInsert], now: datetime) -> None:
    rows = connection.execute(
        insert(crops).returning(crops.c.crop_row, sort_by_parameter_order=True),
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
    ).scalars()
    connection.execute(
        insert(embeddings),
        [
            {
                "crop_row": crop_row,
                "model_row": item.model_row,
                "vector": item.vector.astype("<f4", copy=False).tobytes(),
            }
            for crop_row, item in zip(rows, items, strict=True)
        ],
    )


def delete_crop(
    connection: Connection, gallery_row: int, crop_id: UUID, *, gallery: str, now: datetime
) -> str:
    """Delete a crop and its vectors, and remember that its image must go; returns its blob key.

    Raises:
        NotFound: there is no such crop.
    """
    position = _take_positions(connection, gallery_row, 1)
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
    _log_crops(connection, gallery_row, CHANGE_CROP_DELETED, [crop_id], position, now)
    key = image_key(gallery, row.blob_id)
    connection.execute(insert(blob_removals).values(blob_key=key, create_time=now))
    return key


def forget_blob_removals(connection: Connection, keys: Iterable[str]) -> None:
    """Note that these images are gone from the blob store."""
    connection.execute(delete(blob_removals).where(blob_removals.c.blob_key.in_(list(keys))))


def _insert_row(connection: Connection, statement: ReturningInsert[Any]) -> int:
    return int(connection.execute(statement).scalar_one())


def _log_crops(
    connection: Connection,
    gallery_row: int,
    kind: int,
    ids: Sequence[UUID],
    first: int,
    now: datetime,
) -> None:
    connection.execute(
        insert(changes),
        [
            {
                "gallery_row": gallery_row,
                "position": first + offset,
                "kind": kind,
                "crop_id": crop_id,
                "create_time": now,
            }
            for offset, crop_id in enumerate(ids)
        ],
    )


def _take_positions(connection: Connection, gallery_row: int, count: int) -> int:
    """Lock the gallery's log until the commit and take ``count`` positions; returns the last."""
    connection.execute(
        update(galleries)
        .where(galleries.c.gallery_row == gallery_row)
        .values(position=galleries.c.position + count)
    )
    statement = select(galleries.c.position).where(galleries.c.gallery_row == gallery_row)
    return int(connection.execute(statement).scalar_one())


def _give_back_positions(connection: Connection, gallery_row: int, count: int) -> None:
    """Return the last positions taken, still under the lock: the log has no gaps."""
    _take_positions(connection, gallery_row, -count)
