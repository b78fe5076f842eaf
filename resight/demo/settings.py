"""How large a demo is; the defaults take minutes on two cores."""

from __future__ import annotations

from dataclasses import dataclass

from resight.errors import InvalidArgument

__all__ = ["DemoSettings"]


@dataclass(frozen=True)
class DemoSettings:
    """Size of the simulated site, of the adaptation and of the contact sheet.

    Args:
        identities, cameras, crops, seed: As in ``resight simulate``.
        height, width: Input of the encoder in pixels.
        epochs: Rounds of labelling and training; 0 leaves the encoder as it starts.
        options: More settings of ``resight adapt run``, as ``key=value``.
        rows: Queries on the contact sheet.
        matches: Ranked matches shown of each.

    Raises:
        InvalidArgument: A value that the demo itself uses is out of range.
    """

    identities: int = 100
    cameras: int = 6
    crops: int = 2400
    seed: int = 0
    height: int = 128
    width: int = 64
    epochs: int = 6
    # Batch-norm statistics of so few and so similar crops undo what ImageNet taught.
    options: tuple[str, ...] = ("preset=fast", "freeze_bn=true", "precision=fp32")
    rows: int = 8
    matches: int = 8

    def __post_init__(self) -> None:
        for name, value, most in (("rows", self.rows, 100), ("matches", self.matches, 50)):
            if not 1 <= value <= most:
                raise InvalidArgument(f"--{name} {value} must lie in 1 to {most}", field=name)
