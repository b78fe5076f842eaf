"""The models of a gallery under its lock: known, moved, and their change logged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from sqlalchemy import Connection, insert, select, update

from resight.errors import FailedPrecondition, NotFound
from service.catalog.change_log import take_positions
from service.catalog.models import CHANGE_MODELS, changes, galleries, model_events, models
from service.domain.model import ModelState

__all__ = [
    "Actor",
    "KnownModel",
    "Note",
    "known_models",
    "move",
    "note_models_changed",
    "wanted",
]


class Actor(Enum):
    """Who changes the state of a model."""

    CALLER = "caller"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Note:
    """Who does it, why and when."""

    actor: Actor
    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model as its gallery's lock keeps it."""

    model_row: int
    version: str
    state: ModelState


def known_models(connection: Connection, gallery_row: int) -> list[KnownModel]:
    """Every model of a gallery, whose lock is held from now on to the end of the transaction."""
    take_positions(connection, gallery_row, 0)
    rows = connection.execute(
        select(models.c.model_row, models.c.version, models.c.state).where(
            models.c.gallery_row == gallery_row
        )
    )
    return [KnownModel(row.model_row, row.version, ModelState(row.state)) for row in rows]


def wanted(known: list[KnownModel], version: str, state: ModelState, *, doing: str) -> KnownModel:
    """The model of a version, in the state that it must have to be ``doing``.

    Raises:
        NotFound: unknown model.
        FailedPrecondition: it is in another state (``MODEL_STATE``).
    """
    model = next((one for one in known if one.version == version), None)
    if model is None:
        raise NotFound(
            f"model {version[:80]!a} is not in the gallery; ListModels names those there are",
            field="model_version",
            reason="MODEL_NOT_FOUND",
        )
    if model.state is not state:
        raise FailedPrecondition(
            f"model {version} is {model.state.value} and cannot be {doing}",
            field="model_version",
            reason="MODEL_STATE",
        )
    return model


def move(
    connection: Connection,
    gallery_row: int,
    model: KnownModel,
    state: ModelState,
    kind: str,
    note: Note,
) -> None:
    """Give a model another state, and note it as an event of a kind unless that is empty."""
    connection.execute(
        update(models).where(models.c.model_row == model.model_row).values(state=state.value)
    )
    if kind:
        connection.execute(
            insert(model_events).values(
                gallery_row=gallery_row,
                model_row=model.model_row,
                kind=kind,
                actor=note.actor.value,
                reason=note.reason,
                create_time=note.now,
            )
        )


def note_models_changed(connection: Connection, gallery_row: int, *, now: datetime) -> None:
    """Count the generation up and log the change, under the gallery's lock."""
    position = take_positions(connection, gallery_row, 1)
    connection.execute(
        update(galleries)
        .where(galleries.c.gallery_row == gallery_row)
        .values(generation=galleries.c.generation + 1)
    )
    connection.execute(
        insert(changes).values(
            gallery_row=gallery_row, position=position, kind=CHANGE_MODELS, create_time=now
        )
    )
