"""How the holder of a lease proves itself, and what every run needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

from resight.errors import FailedPrecondition
from service.domain import names

__all__ = ["RunKey", "require_images", "run_id"]


@dataclass(frozen=True, slots=True)
class RunKey:
    """What a holder sends with every call; nothing is checked yet."""

    gallery: str
    run_id: str
    lease_token: str

    @property
    def token_digest(self) -> bytes:
        """What the catalog keeps of the token."""
        return hashlib.sha256(self.lease_token.encode()).digest()

    def identifier(self) -> UUID:
        """The run's id.

        Raises:
            InvalidArgument: not a UUID.
        """
        return run_id(self.run_id)


def run_id(value: str) -> UUID:
    """Read a run's id."""
    return names.crop_id(value, field="run_id")


def require_images(stored: bool) -> None:
    """Refuse what needs the images of crops where none is kept.

    Raises:
        FailedPrecondition: images are not stored (reason ``IMAGES_NOT_STORED``).
    """
    if not stored:
        raise FailedPrecondition(
            "privacy.store_images is off: this service keeps no image of a crop, neither to show "
            "nor to adapt to; adapt from a folder with `resight adapt run`, or turn it on",
            field="privacy.store_images",
            reason="IMAGES_NOT_STORED",
        )
