"""Statements that create galleries, choose their live model and register their cameras."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.dml import ReturningInsert

from resight.errors import AlreadyExists, FailedPrecondition, ResourceExhausted
from service.catalog import lifecycle_reads
from service.catalog.change_log import give_back_positions, take_positions
from service.catalog.gallery_reads import camera_record
from service.catalog.model_states import note_models_changed
from service.catalog.models import (
    CHANGE_CAMERA_ADDED,
    cameras,
    changes,
    embeddings,
    galleries,
    models,
)
from service.catalog.records import CameraRecord, GalleryRecord
from service.domain.crop import Camera

__all__ = ["create_camera", "ensure_gallery", "set_retention"]

LIVE = "live"


def ensure_gallery(
    connection: Connection,
    name: str,
    *,
    model_version: str,
    dimension: int,
    now: datetime,
    max_galleries: int,
) -> GalleryRecord:
    """Create the gallery when it is not there, and make the given model its live one, unless it
    has vectors of a live model whose bundle is stored, or its live model came by promotion.

    Raises:
        FailedPrecondition: the gallery holds vectors of another model whose bundle is not stored.
        ResourceExhausted: there are ``max_galleries`` already.
    """
    found = _gallery_row(connection, name)
    if found is None:
        if connection.execute(select(func.count()).select_from(galleries)).scalar_one() >= (
            max_galleries
        ):
            raise ResourceExhausted(
                f"there are {max_galleries} galleries already; raise limits.max_galleries",
                field="gallery",
                reason="TOO_MANY_GALLERIES",
            )
        found = _create_gallery(connection, name, now)
    # Another process may be about to do the same.
    take_positions(connection, found, 0)
    _ensure_model(connection, found, name, model_version, dimension, now)
    return lifecycle_reads.fed_models(connection, found).live


def _gallery_row(connection: Connection, name: str) -> int | None:
    statement = select(galleries.c.gallery_row).where(galleries.c.name == name)
    return connection.execute(statement).scalar()


def _create_gallery(connection: Connection, name: str, now: datetime) -> int:
    statement = insert(galleries).values(name=name, position=0, create_time=now)
    try:
        with connection.begin_nested():
            return _insert_row(connection, statement.returning(galleries.c.gallery_row))
    except IntegrityError:
        # Another process was faster, and has committed by now.
        found = _gallery_row(connection, name)
        if found is None:
            raise
        return found


def _ensure_model(
    connection: Connection, gallery_row: int, name: str, version: str, dimension: int, now: datetime
) -> None:
    rows = connection.execute(select(models).where(models.c.gallery_row == gallery_row)).all()
    same = next((row for row in rows if row.version == version), None)
    live = next((row for row in rows if row.state == LIVE), None)
    if same is not None and same.dimension != dimension:
        raise FailedPrecondition(
            f"gallery {name!r} knows model {version} with {same.dimension} values a vector, but "
            f"the bundle has {dimension}; the bundle was not written by resight",
            field="bundle",
        )
    if live is not None and same is not None and live.model_row == same.model_row:
        return
    if live is not None and _has_vectors(connection, live.model_row):
        if lifecycle_reads.archive_digest(connection, live.model_row) is not None:
            return
        raise FailedPrecondition(
            f"gallery {name!r} holds vectors of model {live.version}, but the bundle is {version}; "
            "vectors of two models are never comparable. Serve the bundle of the gallery's model, "
            "and bring in another one with `resight models register`; or begin with an empty data "
            "directory (--data) and ingest the crops again",
            field="bundle",
            reason="MODEL_VERSION_MISMATCH",
        )
    if live is not None:
        if lifecycle_reads.last_event(connection, gallery_row) is not None:
            return
        note_models_changed(connection, gallery_row, now=now)
        connection.execute(
            update(models).where(models.c.model_row == live.model_row).values(state="retired")
        )
    if same is not None:
        connection.execute(
            update(models).where(models.c.model_row == same.model_row).values(state=LIVE)
        )
        return
    _insert_row(
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
    position = take_positions(connection, gallery_row, 1)
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
        give_back_positions(connection, gallery_row, 1)
        return camera_record(row)
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


def set_retention(connection: Connection, camera_row: int, days: float | None) -> Camera:
    """Keep a camera's crops so many days; None: as the service keeps every crop."""
    chosen = cameras.c.camera_row == camera_row
    connection.execute(update(cameras).where(chosen).values(retention_days=days))
    return camera_record(connection.execute(select(cameras).where(chosen)).one()).camera


def _insert_row(connection: Connection, statement: ReturningInsert[Any]) -> int:
    return int(connection.execute(statement).scalar_one())
