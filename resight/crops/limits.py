"""How large and how small an image may be."""

from __future__ import annotations

from dataclasses import dataclass

from resight.errors import InvalidArgument

__all__ = ["DEFAULT_LIMITS", "ImageLimits"]

# Pillow refuses more by itself, so a higher setting could not be kept.
_PILLOW_CEILING = 178_956_970


@dataclass(frozen=True)
class ImageLimits:
    """Bounds checked before an image is decoded.

    Attributes:
        max_bytes: Longest encoded image, in bytes.
        max_pixels: Most pixels (height x width) after decoding.
        min_side: Shortest height or width, in pixels.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    min_side: int = 8

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise InvalidArgument("max_bytes must be at least 1", field="max_bytes")
        if not 1 <= self.max_pixels <= _PILLOW_CEILING:
            raise InvalidArgument(
                f"max_pixels must lie between 1 and {_PILLOW_CEILING}", field="max_pixels"
            )
        if self.min_side < 1:
            raise InvalidArgument("min_side must be at least 1", field="min_side")


DEFAULT_LIMITS = ImageLimits()
