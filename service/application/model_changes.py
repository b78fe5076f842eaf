"""What came of a change of models."""

from __future__ import annotations

from dataclasses import dataclass

from service.application.model_check import Checked
from service.domain.filling import FillingSource

__all__ = ["Promoted", "RolledBack", "Staged"]


@dataclass(frozen=True, slots=True)
class Staged:
    """A shadow; ``retired`` is the version of the previous model that made room, or empty."""

    model_version: str
    retired: str
    source: FillingSource


@dataclass(frozen=True, slots=True)
class Promoted:
    """What answers from now on, what did before, what was verified, and how many crops cannot be
    found any more because they have no vector of the new model; ``dual_served``: how many are
    found with the model before.
    """

    model_version: str
    previous_version: str
    checked: Checked
    unsearchable: int
    dual_served: int = 0


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What answers again, and what did in between and is kept fed."""

    model_version: str
    previous_version: str
