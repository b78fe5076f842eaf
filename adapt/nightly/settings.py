"""What a night is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from adapt.gate.settings import GateSettings
from resight.errors import InvalidArgument

__all__ = ["NightSettings"]


@dataclass(frozen=True, kw_only=True)
class NightSettings:
    """One night of one gallery.

    Attributes:
        target: ``host:port`` of the service.
        gallery: Whose encoder is adapted.
        state: Folder that remembers from night to night.
        live: Bundle of the gallery's live encoder.
        baseline: Frozen encoder that no night may fall behind; the state folder's when None.
        gate: Where the gate draws the line.
        lease_seconds: How long the lease holds without a heartbeat.
        time_budget: Seconds for the whole night; None for as long as it takes.
        replay: Older crops for each new one.
        min_crops: With fewer new crops the night is skipped.
        max_crops: Most new crops; 0 for all.
        memory_only: Whether crops may lie in memory alone.
        vector_map: Whether a map from the live encoder's vectors is attached to the candidate.
        report: Whether the page of the night is written.
        seed: Of the samples.
    """

    target: str
    gallery: str
    state: Path
    live: Path
    baseline: Path | None = None
    gate: GateSettings = field(default_factory=GateSettings)
    lease_seconds: float = 300.0
    time_budget: float | None = None
    replay: float = 0.3
    min_crops: int = 500
    max_crops: int = 0
    memory_only: bool = False
    vector_map: bool = False
    report: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuses values outside their bounds.

        Raises:
            InvalidArgument: A value is.
        """
        for name, lowest, highest in (
            ("lease_seconds", 1, 86_400),
            ("replay", 0, 100),
            ("min_crops", 2, 10**9),
            ("max_crops", 0, 10**9),
            ("seed", 0, 2**31 - 1),
        ):
            value = getattr(self, name)
            if not lowest <= value <= highest:
                option = name.replace("_", "-").removesuffix("-seconds")
                raise InvalidArgument(
                    f"--{option} {value:g} must lie in {lowest} to {highest}", field=option
                )
