"""Which calls must say why, and what they may say."""

from __future__ import annotations

from collections.abc import Sequence

from resight.errors import InvalidArgument
from service.call import Call

__all__ = ["HEADER", "PURPOSEFUL", "PurposePolicy"]

HEADER = "resight-purpose"

# What finds or shows people. The nightly stream of crops has its one purpose by its name.
PURPOSEFUL = frozenset(
    {
        "SearchService/Search",
        "SearchService/SearchBatch",
        "SearchService/TrackPerson",
        "EmbedService/Embed",
        "GalleryService/GetCrop",
        "GalleryService/ListCrops",
    }
)


class PurposePolicy:
    """What ``governance`` asks of callers.

    Args:
        required: Whether a purpose must be declared.
        purposes: The only ones there are; any text when empty.
    """

    def __init__(self, *, required: bool = False, purposes: Sequence[str] = ()) -> None:
        self._required = required
        self._purposes = tuple(purposes)

    def check(self, call: Call) -> None:
        """Refuse a search or a view without a purpose that holds.

        Raises:
            InvalidArgument: none is declared, or one that is not on the list.
        """
        if call.method not in PURPOSEFUL:
            return
        if not call.purpose:
            if self._required:
                raise InvalidArgument(
                    f"declare why in {HEADER} (gRPC metadata, HTTP header, --purpose): "
                    f"{self._allowed()}",
                    field=HEADER,
                    reason="PURPOSE_MISSING",
                )
            return
        if self._purposes and call.purpose not in self._purposes:
            raise InvalidArgument(
                f"{HEADER} {call.purpose!r} is no purpose of this service; declare "
                f"{self._allowed()}",
                field=HEADER,
                reason="PURPOSE_UNKNOWN",
            )

    def _allowed(self) -> str:
        if not self._purposes:
            return "any text of at most 200 characters"
        return "one of " + ", ".join(repr(purpose) for purpose in self._purposes)
