"""Encoders that a gallery knows, and what the gate said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from math import isfinite
from typing import Any
from uuid import UUID

from resight.errors import FailedPrecondition, InvalidArgument
from service.domain.adaptation import figures_text

__all__ = ["GateOutcome", "GateVerdict", "Model", "ModelState", "model_version"]

MAX_REASONS = 32
MAX_REASON = 500
MAX_VERSION = 128
MAX_METHOD = 64


class ModelState(Enum):
    """Where a model stands."""

    CANDIDATE = "candidate"
    SHADOW = "shadow"
    LIVE = "live"
    PREVIOUS = "previous"
    RETIRED = "retired"


class GateOutcome(Enum):
    """What the gate decided."""

    UNKNOWN = "unknown"
    PASSED = "passed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What the label-free gate said; ``report`` is None where it was not read."""

    outcome: GateOutcome = GateOutcome.UNKNOWN
    score: float = 0.0
    reasons: Sequence[str] = ()
    report: Mapping[str, Any] | None = None

    def admitted(self, *, max_bytes: int) -> GateVerdict:
        """The verdict, when it lets a candidate be registered.

        Raises:
            InvalidArgument: a score that is not finite, or more text than allowed.
            FailedPrecondition: the gate refused (reason ``GATE_REFUSED``).
        """
        if not isfinite(self.score):
            raise InvalidArgument("gate.score is not finite", field="gate.score")
        if len(self.reasons) > MAX_REASONS or any(len(text) > MAX_REASON for text in self.reasons):
            raise InvalidArgument(
                f"gate.reasons: send at most {MAX_REASONS} of at most {MAX_REASON} characters",
                field="gate.reasons",
            )
        report = self.report or {}
        figures_text(report, limit=max_bytes, setting="models.max_gate_bytes", name="gate.report")
        if self.outcome is GateOutcome.REFUSED:
            raise FailedPrecondition(
                f"the gate refused this candidate ({'; '.join(self.reasons) or 'no reason given'});"
                " a refused encoder is not registered: finish the run as refused",
                field="gate.outcome",
                reason="GATE_REFUSED",
            )
        return self


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder that a gallery knows; ``bundle_sha256`` is empty when no archive is stored."""

    model_version: str
    state: ModelState
    dimension: int
    create_time: datetime
    parent_version: str = ""
    method: str = ""
    run_id: UUID | None = None
    gate: GateVerdict = GateVerdict()
    bundle_sha256: bytes = b""
    bundle_size_bytes: int = 0


def model_version(value: str) -> str:
    """Check a model version a caller names: 1 to 128 printable characters."""
    if not 0 < len(value) <= MAX_VERSION or not value.isprintable():
        raise InvalidArgument(
            f"model_version {value[:80]!a} is not one; ListModels names those there are",
            field="model_version",
        )
    return value
