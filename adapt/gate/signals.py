"""The measurements of one encoder, by name; ``docs/gate.md`` has their table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adapt.gate import contrast, copies, distribution, grouping, mixing, reciprocity, stability
from adapt.gate.view import View

__all__ = ["HIGHER_IS_BETTER", "MEASUREMENTS", "Figures", "measure"]

Figures = Mapping[str, float | None]

MEASUREMENTS: Mapping[str, Callable[[View], float | None]] = {
    "silhouette": grouping.silhouette,
    "clustered": grouping.clustered,
    "spanning": grouping.spanning,
    "stability": stability.stability,
    "reciprocity": reciprocity.reciprocity,
    "contrast": contrast.contrast,
    "distinctness": contrast.distinctness,
    "steadiness": copies.steadiness,
    "recovery": copies.recovery,
    "mixing": mixing.mixing,
    "leakage": mixing.leakage,
    "orphans": distribution.orphans,
    "hubness": distribution.hubness,
    "uniformity": distribution.uniformity,
    "effective_rank": distribution.effective_rank,
    "crowding": distribution.crowding,
}

HIGHER_IS_BETTER: Mapping[str, bool] = {
    name: name not in {"leakage", "orphans", "hubness", "uniformity", "crowding"}
    for name in MEASUREMENTS
}


def measure(view: View) -> dict[str, float | None]:
    """Every measurement; None where it cannot be made on these crops."""
    return {name: function(view) for name, function in MEASUREMENTS.items()}
