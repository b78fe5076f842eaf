"""How long the crops of one camera are kept, when that is another time than the service's own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from sqlalchemy import Connection

from resight.errors import InvalidArgument
from service import call
from service.application.galleries import Galleries
from service.application.visibility import require_unlimited
from service.catalog import gallery_writes
from service.catalog.store import Catalog
from service.domain import names
from service.domain.crop import Camera

__all__ = ["CameraRetention"]

# A second, so that nobody who means to keep nothing sets 0; a hundred years.
LEAST_DAYS = 1 / 86_400
MOST_DAYS = 36_525.0


class CameraRetention:
    """Sets it.

    Args:
        catalog: Where cameras are stored.
        galleries: Those served.
        changed: Called when a camera has another time: what is too old now is dropped soon.
    """

    def __init__(
        self, *, catalog: Catalog, galleries: Galleries, changed: Callable[[], None]
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._changed = changed

    async def update(self, gallery: str, camera_id: str, days: float | None) -> Camera:
        """Keep a camera's crops so many days after their capture, instead of `retention.days`;
        None for that again. Crops that are too old already are dropped at once, here; what was
        dropped does not come back.

        Raises:
            InvalidArgument: a bad id or number of days.
            NotFound: unknown gallery or camera.
            PermissionDenied: the caller does not see all of the gallery.
        """
        live = self._galleries.get(gallery)
        require_unlimited("retention")
        if days is not None and not (math.isfinite(days) and LEAST_DAYS <= days <= MOST_DAYS):
            raise InvalidArgument(
                f"retention_days {days} is out of range; send {LEAST_DAYS:.6f} (a second) to "
                f"{MOST_DAYS:.0f}, or leave it unset for the service's own retention.days",
                field="retention_days",
            )
        wanted = names.camera_id(camera_id)
        call.current().note(camera_id=wanted, retention_days=days)
        camera = live.camera(wanted, field="camera_id")

        def apply(connection: Connection) -> Camera:
            return gallery_writes.set_retention(connection, camera.camera_row, days)

        asked = call.current()

        def committed(_: Camera) -> None:
            asked.note(changed=True)

        changing = asyncio.ensure_future(self._catalog.change(apply, committed=committed))
        try:
            return await asyncio.shield(changing)
        except asyncio.CancelledError:
            # A caller who leaves does not undo it; what is recorded of the call is to say so.
            await asyncio.wait([changing])
            raise
        finally:
            if changing.done() and not changing.cancelled() and changing.exception() is None:
                self._changed()
