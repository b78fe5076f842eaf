"""Adaptation runs: their states, leases, progress and endings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

from resight.errors import FailedPrecondition, InvalidArgument
from service.domain import names

__all__ = [
    "AdaptationRun",
    "CropChoice",
    "Ending",
    "LeaseRule",
    "Progress",
    "RunState",
    "Span",
    "ending",
    "figures_text",
    "holder",
    "lease_held",
    "lease_lost",
    "progress",
]

MAX_HOLDER = 200
MAX_STAGE = 64
MAX_PROGRESS_MESSAGE = 500
MAX_MESSAGE = 2000
SHORTEST_LEASE = timedelta(seconds=1)

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)


class RunState(Enum):
    """Where a run stands. All but RUNNING are final."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    SKIPPED = "skipped"
    FAILED = "failed"
    ABANDONED = "abandoned"


class Span(Enum):
    """Which part of a gallery a run may see."""

    NEW = "new"
    OLDER = "older"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is; ``fraction`` 0 to 1 of the stage."""

    stage: str = ""
    fraction: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True)
class AdaptationRun:
    """The record of a run; times are aware UTC.

    ``end_time`` is None while it runs, ``lease_expire_time`` afterwards. ``figures`` is None where
    it was not read or nothing was reported.
    """

    run_id: UUID
    state: RunState
    holder: str
    start_time: datetime
    update_time: datetime
    end_time: datetime | None
    lease_expire_time: datetime | None
    progress: Progress = Progress()
    reason: str = ""
    message: str = ""
    model_version: str = ""
    new_crops: int = 0
    replay_crops: int = 0
    figures: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends."""

    state: RunState
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class CropChoice:
    """Which crops a stream holds; nothing is checked yet. 0 crops means all."""

    span: Span = Span.NEW
    camera_ids: Sequence[str] = field(default=())
    cursor: str = ""
    max_crops: int = 0
    sample_size: int = 0
    sample_seed: int = 0

    def checked(self, *, max_cameras: int) -> CropChoice:
        """The choice with valid, sorted, distinct camera ids.

        Raises:
            InvalidArgument: too many cameras, a bad id or a negative number.
        """
        for name in ("max_crops", "sample_size"):
            if getattr(self, name) < 0:
                raise InvalidArgument(
                    f"{name} is {getattr(self, name)}; send 0 for all, or a positive number",
                    field=name,
                )
        if len(self.camera_ids) > max_cameras:
            raise InvalidArgument(
                f"camera_ids has {len(self.camera_ids)} ids; send at most {max_cameras}",
                field="camera_ids",
            )
        ids = tuple(sorted({names.camera_id(name, field="camera_ids") for name in self.camera_ids}))
        return CropChoice(
            self.span, ids, self.cursor, self.max_crops, self.sample_size, self.sample_seed
        )


@dataclass(frozen=True, slots=True)
class LeaseRule:
    """How long a lease may hold without a heartbeat."""

    default: timedelta
    longest: timedelta

    def check(self, value: timedelta | None) -> timedelta:
        """The length of the lease.

        Raises:
            InvalidArgument: outside the bounds.
        """
        if value is None:
            return self.default
        if not SHORTEST_LEASE <= value <= self.longest:
            raise InvalidArgument(
                f"lease_duration is {value.total_seconds():g} s; send "
                f"{SHORTEST_LEASE.total_seconds():g} to {self.longest.total_seconds():g} s "
                "(nightly.max_lease_seconds), or leave it unset for "
                f"{self.default.total_seconds():g} s",
                field="lease_duration",
            )
        return value


def holder(value: str) -> str:
    """Who asks for a lease: 1 to 200 printable characters."""
    if not value:
        raise InvalidArgument(
            "holder is empty; say who runs, such as host and process: it is shown to whoever is "
            "refused meanwhile",
            field="holder",
        )
    return names.printable(value, field="holder", limit=MAX_HOLDER)


def progress(stage: str, fraction: float, message: str) -> Progress:
    """A checked progress."""
    if not 0.0 <= fraction <= 1.0:
        raise InvalidArgument(
            f"progress.fraction is {fraction}; send 0 to 1", field="progress.fraction"
        )
    return Progress(
        names.printable(stage, field="progress.stage", limit=MAX_STAGE),
        fraction,
        names.printable(message, field="progress.message", limit=MAX_PROGRESS_MESSAGE),
    )


def ending(state: RunState | None, reason: str, message: str) -> Ending:
    """A checked ending."""
    if state is None or state in (RunState.RUNNING, RunState.ABANDONED):
        raise InvalidArgument(
            "state: a run ends as succeeded, refused, skipped or failed", field="state"
        )
    if not (_REASON.fullmatch(reason) or (not reason and state is RunState.SUCCEEDED)):
        raise InvalidArgument(
            f"reason {reason[:80]!a} is not 1 to 64 of [A-Z0-9_] beginning with a letter",
            field="reason",
        )
    if len(message) > MAX_MESSAGE:
        raise InvalidArgument(
            f"message has {len(message)} characters; shorten it to at most {MAX_MESSAGE}",
            field="message",
        )
    return Ending(state, reason, message)


def figures_text(values: Mapping[str, Any], *, limit: int, setting: str, name: str) -> str:
    """The JSON text of reported values.

    Raises:
        InvalidArgument: not JSON (NaN, infinity, too deep), or longer than ``limit`` bytes.
    """
    try:
        text = json.dumps(values, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidArgument(
            f"{name} is not JSON ({error}); send finite numbers, text, lists and objects",
            field=name,
        ) from error
    if size > limit:
        raise InvalidArgument(
            f"{name} has {size} bytes as JSON; send at most {limit} ({setting})", field=name
        )
    return text


def lease_held(holder: str, expire_time: datetime, now: datetime) -> FailedPrecondition:
    """What a starter is told while another run holds the lease."""
    return FailedPrecondition(
        f"{holder} holds the lease of this gallery until {_shown(expire_time)} (in "
        f"{(expire_time - now).total_seconds():.0f} s, unless it is extended); wait until it has "
        "finished, or stop it and wait until then",
        field="gallery",
        reason="LEASE_HELD",
    )


def lease_lost(run: AdaptationRun) -> FailedPrecondition:
    """What the holder of a lost lease is told."""
    when = "" if run.end_time is None else f" at {_shown(run.end_time)}"
    return FailedPrecondition(
        f"run {run.run_id} lost its lease{when}: {run.message}; stop, nothing it does counts any "
        "more",
        field="run_id",
        reason="LEASE_LOST",
    )


def _shown(value: datetime) -> str:
    return value.isoformat(timespec="seconds")
