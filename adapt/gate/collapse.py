"""What no score can make up for: an encoder that says nothing, or the same of everybody.

no embedding     the graph fails, or gives what is not unit vectors (NaN and the like)
dimension        the candidate's is not the live encoder's
crowding         mean similarity of two crops above ``max_crowding``
effective rank   below ``min_rank``, or below ``min_rank_share`` of the live encoder's
clusters         fewer than two
"""

from __future__ import annotations

from adapt.gate.settings import GateSettings
from adapt.gate.signals import Figures

__all__ = ["collapsed"]


def collapsed(
    candidate: Figures, live: Figures, *, clusters: int, settings: GateSettings
) -> list[str]:
    """Reasons to refuse the candidate whatever its score; empty where there are none."""
    found = []
    crowding, rank = candidate["crowding"], candidate["effective_rank"]
    if crowding is None or not crowding <= settings.max_crowding:
        found.append(
            f"collapse: two crops have a mean similarity of {_text(crowding)}, above"
            f" {settings.max_crowding}: nearly one vector for all"
        )
    least = max(settings.min_rank, settings.min_rank_share * (live["effective_rank"] or 0.0))
    if rank is None or not rank >= least:
        found.append(
            f"collapse: effective rank {_text(rank)}, below {least:.1f} (live"
            f" {_text(live['effective_rank'])})"
        )
    if clusters < 2:
        found.append(f"collapse: {clusters} clusters")
    return found


def _text(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4g}"
