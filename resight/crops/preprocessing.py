"""How an encoded image becomes an encoder's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from resight.errors import InvalidArgument

__all__ = ["RESIZE_FILTERS", "Preprocessing", "ResizeFilter"]

ResizeFilter = Literal["bilinear", "bicubic"]
RESIZE_FILTERS: tuple[ResizeFilter, ...] = get_args(ResizeFilter)

_MAX_SIDE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """Input size and resize filter; scaling and normalisation live inside the encoder's graph.

    Attributes:
        height: Pixels.
        width: Pixels.
        resize_filter: ``bilinear`` or ``bicubic``, both antialiased (Pillow's).
    """

    height: int
    width: int
    resize_filter: ResizeFilter = "bilinear"

    def __post_init__(self) -> None:
        for field, value in (("height", self.height), ("width", self.width)):
            if not 1 <= value <= _MAX_SIDE:
                raise InvalidArgument(
                    f"{field} is {value}; it must lie between 1 and {_MAX_SIDE} pixels",
                    field=field,
                )
        if self.resize_filter not in RESIZE_FILTERS:
            raise InvalidArgument(
                f"resize_filter is {self.resize_filter!r}; use one of {', '.join(RESIZE_FILTERS)}",
                field="resize_filter",
            )
