"""How long the crops of cameras were kept at a time, from how long they are now and the audit.

A camera whose retention nobody has changed since is kept as long as now; of another the newest
change before that time tells, and without one it had none of its own.

A change notes that it was committed (``changed``), whatever the caller was told: they may have left
after the commit. An entry from before that note was made tells by its outcome. A process that was
killed between the commit and the entry left a beginning without an end, which says no number of
days: that change is not known here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime

from service.audit.reading import ReadEntry

__all__ = ["CHANGED", "PastRetention"]

CHANGED = "AdminService/UpdateCameraRetention"


class PastRetention:
    """Told every change of a retention, oldest first, then asked.

    Args:
        end: Before which time.
    """

    def __init__(self, end: datetime) -> None:
        self._end = end
        self._before: dict[tuple[str, str], float | None] = defaultdict(lambda: None)
        self._changed_since: set[tuple[str, str]] = set()

    def add_all(self, entries: Iterable[ReadEntry]) -> None:
        """Take entries of ``CHANGED``; those that changed nothing are passed over."""
        for entry in entries:
            notes = entry.said.get("notes")
            if not isinstance(notes, dict):
                continue
            if notes.get("changed") is not True and entry.said.get("outcome") != "OK":
                continue
            camera = (entry.gallery, str(notes.get("camera_id", "")))
            if entry.record_time >= self._end:
                self._changed_since.add(camera)
                continue
            days = notes.get("retention_days")
            self._before[camera] = float(days) if isinstance(days, int | float) else None

    def days(self, gallery: str, camera_id: str, now: float | None) -> float | None:
        """What was a camera's own; None for none.

        Args:
            gallery, camera_id: The camera.
            now: Its own now.
        """
        camera = (gallery, camera_id)
        return self._before[camera] if camera in self._changed_since else now
