"""What the gate says of a candidate, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Signal", "Verdict"]

FORMAT = 1


@dataclass(frozen=True)
class Signal:
    """One measurement of the candidate beside the live encoder, on the same crops.

    Attributes:
        name: Of the measurement, as in docs/gate.md.
        candidate: Its value for the candidate; None where it cannot be measured on these crops.
        live: The same for the live encoder.
        baseline: The same for the frozen baseline, where there is one.
        weight: Of the standardised difference in the score; 0 where it is only reported.
    """

    name: str
    candidate: float | None
    live: float | None
    baseline: float | None = None
    weight: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """The gate's answer.

    Attributes:
        passed: Whether the candidate may be promoted, as far as can be told without labels.
        score: Of the candidate against the live encoder; 0 is "as good", more is better.
        baseline_score: Of the candidate against the frozen baseline, where there is one.
        reasons: Why it was refused, or on what it was passed; each names signals and figures.
        signals: The measurements.
        candidate: Model version.
        live: Model version.
        baseline: Model version, or empty.
        crops: Crops looked at.
        notes: What could not be measured, and why.
        settings: The settings, as JSON values.
        seconds: Wall time by phase.
    """

    passed: bool
    score: float
    baseline_score: float | None
    reasons: tuple[str, ...]
    signals: tuple[Signal, ...]
    candidate: str
    live: str
    baseline: str
    crops: int
    notes: tuple[str, ...]
    settings: dict[str, Any]
    seconds: dict[str, float]

    def payload(self) -> dict[str, Any]:
        """The verdict as JSON values, as ``resight adapt gate --json`` prints and stores it."""
        return {
            "format": FORMAT,
            "passed": self.passed,
            "score": _rounded(self.score),
            "baseline_score": _rounded(self.baseline_score),
            "reasons": list(self.reasons),
            "signals": {
                s.name: {
                    "candidate": _rounded(s.candidate),
                    "live": _rounded(s.live),
                    "baseline": _rounded(s.baseline),
                    "weight": s.weight,
                }
                for s in self.signals
            },
            "candidate": self.candidate,
            "live": self.live,
            "baseline": self.baseline,
            "crops": self.crops,
            "notes": list(self.notes),
            "settings": self.settings,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
