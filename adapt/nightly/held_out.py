"""Which crops of a night the gate judges by: whole blocks of time, never trained on.

An encoder is surest of the crops it was trained on. Time is cut into blocks of ten minutes, the
same for all cameras, so that who walks from one to another is held out at both. Of every
n = round(1 / share) blocks in a row one is held out, and which one a digest decides: block b is iff

    b mod n = blake2b(n, b div n) mod n

That takes a crop's own time alone, so one held out tonight is held out every night and is not
replayed later. A track that reaches into such a block from the one beside it is set aside, too: its
crops are neither trained on nor judged by.

Too few to judge by, or more than twice the share (crops of one hour, say), are not held out; the
new crops are then trained on and judged by alike, and the split says so. Replayed ones of which
more than twice the share lie in such blocks were not held out in their night, and are trained on.
Only new crops are ever judged by, so none that an earlier night was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from adapt.nightly.pull import PulledCrop

__all__ = ["Split", "hold_out", "is_held_out"]

_BLOCK_SECONDS = 600
_MOST = 2.0


@dataclass(frozen=True)
class Split:
    """A night's crops.

    Attributes:
        trained: Those trained on.
        judged: Those held out for the gate; empty where it judges by ``trained``.
        note: By what the gate judges, and why.
    """

    trained: tuple[PulledCrop, ...]
    judged: tuple[PulledCrop, ...]
    note: str


def hold_out(crops: Sequence[PulledCrop], *, share: float, least: int) -> Split:
    """Splits a night's crops.

    Args:
        crops: New and replayed ones.
        share: To hold out, at most 0.5; 0 for none.
        least: Fewer new ones than this are not held out.
    """
    if not share:
        return Split(tuple(crops), (), "judged by crops that were trained on: held_out is 0")
    new = [crop for crop in crops if not crop.replay]
    judged = [crop for crop in new if is_held_out(crop, share=share)]
    why = ""
    if len(judged) < least:
        why = f"{len(judged)} in held-out blocks are fewer than {least}"
    elif len(judged) > _MOST * share * len(new):
        why = f"{len(judged)} of {len(new)} in held-out blocks are too many"
    if why:
        judged, note = [], f"judged by crops that were trained on: {why}"
    else:
        note = f"judged by {len(judged)} crops that were not trained on"
    older = [crop for crop in crops if crop.replay and is_held_out(crop, share=share)]
    if len(older) > _MOST * share * (len(crops) - len(new)):
        older = []
    trained = _without({*judged, *older}, crops)
    return Split(trained, tuple(judged), note)


def _without(out: Set[PulledCrop], crops: Sequence[PulledCrop]) -> tuple[PulledCrop, ...]:
    """The crops that are neither among ``out`` nor of a track that reaches into its blocks."""
    beside = {
        (*_track(crop), _block(crop) + step) for crop in out if crop.row[3] for step in (-1, 1)
    }
    return tuple(
        crop for crop in crops if crop not in out and (*_track(crop), _block(crop)) not in beside
    )


def is_held_out(crop: PulledCrop, *, share: float) -> bool:
    """Whether a crop lies in a held-out block."""
    period = round(1 / share)
    cycle, place = divmod(_block(crop), period)
    digest = blake2b(f"{period}/{cycle}".encode(), digest_size=7).digest()
    return place == int.from_bytes(digest, "big") % period


def _block(crop: PulledCrop) -> int:
    return int(datetime.fromisoformat(crop.row[2]).timestamp()) // _BLOCK_SECONDS


def _track(crop: PulledCrop) -> tuple[str, str]:
    return crop.row[1], crop.row[3]
