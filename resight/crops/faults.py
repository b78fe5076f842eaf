"""The reasons for which a crop is not used: one stable word each."""

from __future__ import annotations

from enum import StrEnum

from resight.errors import ImageTooLarge, ResightError, UndecodableImage

__all__ = ["CropTooLarge", "CropUndecodable", "Fault", "fault_of"]


class Fault(StrEnum):
    """Why a crop was skipped."""

    ZERO_BYTE = "zero-byte"
    NOT_AN_IMAGE = "not an image"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    TOO_LARGE = "too large"
    TOO_SMALL = "too small"
    UNREADABLE = "unreadable"
    NOT_A_FILE = "not a regular file"
    LINKED_FOLDER = "linked folder"
    OUTSIDE = "outside the source"
    MISSING = "missing"
    DUPLICATE = "duplicate path"
    BAD_ROW = "bad manifest row"


class CropUndecodable(UndecodableImage):
    """An image that cannot be used, with the fault that says why."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message, field="image")
        self.fault = fault


class CropTooLarge(ImageTooLarge):
    """An image above the limits."""

    fault = Fault.TOO_LARGE

    def __init__(self, message: str) -> None:
        super().__init__(message, field="image")


def fault_of(error: ResightError) -> Fault:
    """The fault a decoding error stands for."""
    if isinstance(error, CropUndecodable | CropTooLarge):
        return error.fault
    return Fault.CORRUPT
