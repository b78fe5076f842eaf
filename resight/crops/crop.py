"""What a source knows of its crops; no identity, ever."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from resight.crops.faults import Fault
from resight.errors import InvalidArgument

__all__ = ["CropRef", "SkippedCrop", "SourceReport"]


@dataclass(frozen=True)
class CropRef:
    """One crop and what is known of it.

    Attributes:
        path: Image file.
        camera: Camera id, if known.
        capture_time: When it was seen, aware UTC, if known.
        track: Track id within the camera, if known.
        zone: Zone within the camera's view.
        attributes: Flat string map.
    """

    path: Path
    camera: str | None = None
    capture_time: datetime | None = None
    track: str | None = None
    zone: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class SkippedCrop:
    """One crop that was not used, and why.

    Attributes:
        path: File, or the manifest when the row names none.
        reason: One of ``resight.crops.faults.Fault``.
        detail: For people: row and column, sizes, the decoder's words.
    """

    path: Path
    reason: Fault
    detail: str = ""


@dataclass(frozen=True)
class SourceReport:
    """All crops of a source that can be used, and all that cannot."""

    source: Path
    crops: tuple[CropRef, ...]
    skipped: tuple[SkippedCrop, ...]

    @property
    def skipped_by_reason(self) -> dict[str, int]:
        """Number of skipped crops of each reason, reasons in alphabetical order."""
        return dict(sorted(Counter(str(crop.reason) for crop in self.skipped).items()))

    @property
    def without_camera(self) -> int:
        """Number of usable crops whose camera is unknown."""
        return sum(crop.camera is None for crop in self.crops)

    @property
    def without_time(self) -> int:
        """Number of usable crops whose capture time is unknown."""
        return sum(crop.capture_time is None for crop in self.crops)

    @property
    def cameras(self) -> dict[str, int]:
        """Number of usable crops of each known camera."""
        return dict(sorted(Counter(c.camera for c in self.crops if c.camera is not None).items()))

    def summary(self) -> dict[str, object]:
        """The counts as JSON values."""
        return {
            "source": str(self.source),
            "crops": len(self.crops),
            "skipped": len(self.skipped),
            "skipped_by_reason": self.skipped_by_reason,
            "cameras": self.cameras,
            "without_camera": self.without_camera,
            "without_time": self.without_time,
        }

    def describe(self) -> str:
        """The counts in one line for people."""
        reasons = ", ".join(f"{n} {reason}" for reason, n in self.skipped_by_reason.items())
        skipped = f"{len(self.skipped)} skipped" + (f" ({reasons})" if reasons else "")
        return (
            f"{self.source}: {len(self.crops)} crops of {len(self.cameras)} cameras, {skipped},"
            f" {self.without_camera} without camera, {self.without_time} without time"
        )

    def require_crops(self) -> tuple[CropRef, ...]:
        """The usable crops.

        Raises:
            InvalidArgument: There is none.
        """
        if not self.crops:
            raise InvalidArgument(
                f"no usable crop: {self.describe()}; name a folder or manifest with images",
                field="crops",
            )
        return self.crops

    def write_csv(self, path: Path) -> None:
        """Lists the skipped crops as CSV: path, reason, detail."""
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["path", "reason", "detail"])
            writer.writerows([str(c.path), str(c.reason), c.detail] for c in self.skipped)
