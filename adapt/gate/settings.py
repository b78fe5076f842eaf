"""How much the gate looks at, and where it draws the line."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from adapt.training.section import Section
from resight.errors import InvalidArgument

__all__ = ["GateSettings", "read_settings"]


class GateSettings(Section):
    """Settings of the gate.

    Attributes:
        sample: Crops looked at, at most.
        copies: Of these, how many are looked at once more as changed copies.
        least: Fewer usable crops than this are refused: there is nothing to judge by.
        seed: Of the draw and the changes.
        margin: How far the score against the live encoder may lie below 0.
        baseline_margin: The same against the baseline, however many nights lie between.
        max_drop: How far a weighed signal, or ``mixing``, may fall, in its standard deviations.
        max_track_drop: How far the agreement within tracks, or across overlapping cameras, may.
        same_dimension: Refuse a candidate of another dimension than the live encoder's.
        max_crowding: Highest mean similarity of two crops.
        min_rank, min_rank_share: Lowest effective rank, and that as a share of the live one's.
        min_likeness: Lowest overlap of neighbours with the live encoder's.
        views_overlap: Whether one person may be in the view of two cameras at once.
        overlapping: Pairs of cameras whose views do overlap.
        held_out: Share of a night's crops that it does not train on, so that they can be judged by
            (``adapt.nightly.held_out``); 0 for none. The command judges by what it is given.
        threads: To compute with; 0 = all cores this process may use.
    """

    sample: int = Field(default=3000, ge=50, le=100_000)
    copies: int = Field(default=1000, ge=0, le=100_000)
    least: int = Field(default=200, ge=50, le=100_000)
    seed: int = Field(default=1, ge=0, lt=2**31)
    margin: float = Field(default=0.1, ge=0, le=4)
    baseline_margin: float = Field(default=0.2, ge=0, le=4)
    max_drop: float = Field(default=1.5, gt=0, le=4)
    max_track_drop: float = Field(default=0.01, ge=0, le=1)
    same_dimension: bool = True
    max_crowding: float = Field(default=0.9, gt=0, le=1)
    min_rank: float = Field(default=8.0, ge=1)
    min_rank_share: float = Field(default=0.33, ge=0, le=1)
    min_likeness: float = Field(default=0.1, ge=0, le=1)
    views_overlap: bool = True
    overlapping: tuple[tuple[str, str], ...] = ()
    held_out: float = Field(default=0.15, ge=0, le=0.5)
    threads: int = Field(default=0, ge=0, le=1024)


def read_settings(file: Path | None) -> GateSettings:
    """The settings of a .yaml, .toml or .json file; the defaults where none is named.

    Raises:
        InvalidArgument: The file cannot be read, or a setting is unknown or not allowed.
    """
    from adapt.training.resolve import read_config_file  # slow to import

    if file is None:
        return GateSettings()
    try:
        return GateSettings(**read_config_file(file))
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise InvalidArgument(
            f"{file}: {name}: {fault['msg']}; docs/gate.md lists the gate's settings", field=name
        ) from error
