"""Statements that move models between their states, each under the gallery's lock.

Every change that touches a model which holds vectors counts the gallery's generation up and is
logged: vectors that were made for the models before it are refused, and replicas hear of it.
"""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, insert, select

from resight.errors import FailedPrecondition
from service.catalog.lifecycle_reads import archive_digest, missing_vectors
from service.catalog.model_states import (
    KnownModel,
    Note,
    known_models,
    move,
    note_models_changed,
    wanted,
)
from service.catalog.models import (
    crops,
    model_bundles,
    model_failures,
    model_fillings,
    model_removals,
)
from service.domain.filling import FillingSource, FillingState
from service.domain.model import GateOutcome, ModelState

__all__ = ["ended_removal", "promote", "retire", "rollback", "stage"]


def stage(
    connection: Connection,
    gallery_row: int,
    version: str,
    *,
    source: FillingSource,
    retire_previous: bool,
    note: Note,
) -> str:
    """Make a candidate the shadow; from now on every new crop gets a vector of it.

    Returns:
        The version of the previous model, if it was retired for that.

    Raises:
        NotFound: unknown model.
        FailedPrecondition: it is no candidate (``MODEL_STATE``), its archive is gone
            (``BUNDLE_MISSING``), there is a shadow (``SHADOW_EXISTS``) or a previous model that
            is not to be retired (``PREVIOUS_KEPT``).
    """
    known = known_models(connection, gallery_row)
    model = wanted(known, version, ModelState.CANDIDATE, doing="staged")
    if archive_digest(connection, model.model_row) is None:
        raise FailedPrecondition(
            f"the archive of model {version} is not stored; register it again",
            field="model_version",
            reason="BUNDLE_MISSING",
        )
    for other in known:
        if other.state is ModelState.SHADOW:
            raise FailedPrecondition(
                f"model {other.version} is the shadow already; promote or retire it first",
                field="model_version",
                reason="SHADOW_EXISTS",
            )
    previous = next((one for one in known if one.state is ModelState.PREVIOUS), None)
    if previous is not None:
        if not retire_previous:
            raise FailedPrecondition(
                f"model {previous.version} is kept to go back to, and only two models hold vectors "
                "at once; retire it first, or say retire_previous",
                field="retire_previous",
                reason="PREVIOUS_KEPT",
            )
        _refuse_needed(connection, gallery_row, known)
        _retired(connection, gallery_row, previous, note)
    of_gallery = crops.c.gallery_row == gallery_row
    total, until = connection.execute(
        select(func.count(), func.coalesce(func.max(crops.c.crop_row), 0)).where(of_gallery)
    ).one()
    nothing = source is FillingSource.NONE
    connection.execute(
        insert(model_fillings).values(
            model_row=model.model_row,
            source=source.value,
            state=(FillingState.COMPLETE if nothing else FillingState.RUNNING).value,
            last_row=until if nothing else 0,
            until_row=until,
            total=total,
            done=0,
            start_time=note.now,
            update_time=note.now,
            complete_time=note.now if nothing else None,
        )
    )
    move(connection, gallery_row, model, ModelState.SHADOW, "stage", note)
    note_models_changed(connection, gallery_row, now=note.now)
    return "" if previous is None else previous.version


def promote(
    connection: Connection,
    gallery_row: int,
    version: str,
    *,
    allow_missing: bool,
    force: bool,
    note: Note,
) -> int:
    """Make the shadow the live model and the live one the previous; returns how many crops have no
    vector of it.

    Raises:
        NotFound: unknown model.
        FailedPrecondition: it is not the shadow (``MODEL_STATE``), not every crop was looked at
            (``FILLING_INCOMPLETE``), crops lack its vector (``CROPS_MISSING``), or the gate did
            not pass it (``GATE_NOT_PASSED``).
    """
    known = known_models(connection, gallery_row)
    model = wanted(known, version, ModelState.SHADOW, doing="promoted")
    filling, source = connection.execute(
        select(model_fillings.c.state, model_fillings.c.source).where(
            model_fillings.c.model_row == model.model_row
        )
    ).one()
    if filling != FillingState.COMPLETE.value:
        raise FailedPrecondition(
            f"model {version} has not got a vector of every crop yet (filling is {filling}); wait, "
            "or resume it",
            field="model_version",
            reason="FILLING_INCOMPLETE",
        )
    missing = missing_vectors(connection, gallery_row, model.model_row)
    if missing and not allow_missing and source != FillingSource.NONE.value:
        raise FailedPrecondition(
            f"{missing} crops have no vector of model {version} and could not be found with it; "
            "GetModel names the first of them. Resume the filling to try them again, delete them, "
            "or say allow_missing",
            field="allow_missing",
            reason="CROPS_MISSING",
        )
    outcome = connection.execute(
        select(model_bundles.c.gate_outcome).where(model_bundles.c.model_row == model.model_row)
    ).scalar()
    if outcome != GateOutcome.PASSED.value and not force:
        raise FailedPrecondition(
            f"the gate did not pass model {version} (outcome {outcome or 'unknown'}); to promote "
            "it all the same, say force with a reason",
            field="force",
            reason="GATE_NOT_PASSED",
        )
    _flip(connection, gallery_row, known, model, "promote", note)
    return missing


def rollback(
    connection: Connection, gallery_row: int, *, leaving: str = "", note: Note
) -> tuple[str, str]:
    """Make the previous model live again and the live one the previous; returns the versions of
    both, the live one first.

    Args:
        connection: In a transaction.
        gallery_row: Which gallery.
        leaving: The live model as the caller knows it; empty for whichever is. Of two that roll
            back the same model the second would bring it back.
        note: Who and why.

    Raises:
        FailedPrecondition: another model is live than the one to leave (``MODEL_STATE``), or there
            is no previous one (``NO_PREVIOUS``).
    """
    known = known_models(connection, gallery_row)
    live = next(one for one in known if one.state is ModelState.LIVE)
    if leaving and live.version != leaving:
        raise FailedPrecondition(
            f"model {live.version} answers, not {leaving[:80]!a}, which was to be left: somebody "
            "has changed models meanwhile",
            field="model_version",
            reason="MODEL_STATE",
        )
    previous = next((one for one in known if one.state is ModelState.PREVIOUS), None)
    if previous is None:
        raise FailedPrecondition(
            "the gallery keeps no previous model to go back to",
            field="gallery",
            reason="NO_PREVIOUS",
        )
    left = _flip(connection, gallery_row, known, previous, "rollback", note)
    return previous.version, left


def retire(connection: Connection, gallery_row: int, version: str, *, note: Note) -> bool:
    """Retire a candidate, the shadow or the previous model; returns whether it held vectors, which
    are then deleted little by little.

    Raises:
        NotFound: unknown model.
        FailedPrecondition: it is live or retired (``MODEL_STATE``).
    """
    known = known_models(connection, gallery_row)
    model = next((one for one in known if one.version == version), None)
    if model is not None and model.state is ModelState.CANDIDATE:
        connection.execute(insert(model_removals).values(model_row=model.model_row, last_row=0))
        move(connection, gallery_row, model, ModelState.RETIRED, "retire", note)
        return False
    if model is None or model.state not in (ModelState.SHADOW, ModelState.PREVIOUS):
        model = wanted(known, version, ModelState.PREVIOUS, doing="retired")
    if model.state is ModelState.PREVIOUS:
        _refuse_needed(connection, gallery_row, known)
    _retired(connection, gallery_row, model, note)
    note_models_changed(connection, gallery_row, now=note.now)
    return True


def ended_removal(connection: Connection, model_row: int) -> None:
    """No vector of this retired model is left."""
    connection.execute(delete(model_removals).where(model_removals.c.model_row == model_row))


def _flip(
    connection: Connection,
    gallery_row: int,
    known: list[KnownModel],
    chosen: KnownModel,
    kind: str,
    note: Note,
) -> str:
    live = next(one for one in known if one.state is ModelState.LIVE)
    move(connection, gallery_row, live, ModelState.PREVIOUS, "", note)
    move(connection, gallery_row, chosen, ModelState.LIVE, kind, note)
    note_models_changed(connection, gallery_row, now=note.now)
    return live.version


def _refuse_needed(connection: Connection, gallery_row: int, known: list[KnownModel]) -> None:
    """The previous model stays while crops can be found with it alone."""
    live = next(one for one in known if one.state is ModelState.LIVE)
    source = connection.execute(
        select(model_fillings.c.source).where(model_fillings.c.model_row == live.model_row)
    ).scalar()
    if source == FillingSource.NONE.value and (
        count := missing_vectors(connection, gallery_row, live.model_row)
    ):
        raise FailedPrecondition(
            f"{count} crops have a vector of the previous model alone and would be found no more; "
            "wait until they have expired, or delete them",
            field="model_version",
            reason="DUAL_SERVED",
        )


def _retired(connection: Connection, gallery_row: int, model: KnownModel, note: Note) -> None:
    for table in (model_failures, model_fillings):
        connection.execute(delete(table).where(table.c.model_row == model.model_row))
    connection.execute(insert(model_removals).values(model_row=model.model_row, last_row=0))
    move(connection, gallery_row, model, ModelState.RETIRED, "retire", note)
