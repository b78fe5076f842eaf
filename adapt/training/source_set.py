"""A labelled source set: crops whose identities are known, beside the unlabelled target's.

This is the one place of a run that reads identities, and it reads the source's alone. Crops without
an identity, junk and distractors are left out and counted; a crop that is in both sets would bring
an identity into the target, and is refused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapt.data.cache import CropCache
from adapt.data.cameras import camera_codes
from adapt.evaluation.labels import Labels, read_labels
from adapt.training.checkpoint import crop_set_digest
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet, decode_crops
from resight.crops import CropRef, Preprocessing, open_source
from resight.errors import InvalidArgument

__all__ = ["SourceSet", "read_source_set"]

# In file names of Market-1501's style: junk, and people who are not named.
_NOBODY = {"-1", "0"}


@dataclass(frozen=True)
class SourceSet:
    """Labelled crops.

    Attributes:
        cache: The decoded crops, M of them.
        identities: (M,) int64 from 0, every one with a crop; -1 = not used.
        cameras: (M,) int32 for the sampler, or None.
        skipped: Files that cannot be used.
    """

    cache: CropCache
    identities: NDArray[np.int64]
    cameras: NDArray[np.int32] | None
    skipped: int

    @property
    def count(self) -> int:
        """Number of identities."""
        return int(self.identities.max()) + 1

    @property
    def without_identity(self) -> int:
        """Crops left out: unnamed, junk, distractors."""
        return int(np.count_nonzero(self.identities < 0))

    def digest(self, preprocessing: Preprocessing) -> str:
        """Of the crops and who is on them."""
        people = hashlib.sha256(self.identities.tobytes()).hexdigest()[:8]
        return f"{crop_set_digest(self.cache.crops, preprocessing)}-{people}"

    def counts(self) -> dict[str, object]:
        """What the summary says of it."""
        return {
            "usable": len(self.identities) - self.without_identity,
            "identities": self.count,
            "skipped": self.skipped,
            "without_identity": self.without_identity,
            "cameras_used": self.cameras is not None,
        }


def read_source_set(
    source: Path, config: RunConfig, target: CropSet, *, cache: Path, threads: int
) -> SourceSet:
    """Scans ``source``, decodes its crops into ``cache`` and reads who is on them.

    Raises:
        InvalidArgument: No identities, a single one, or crops that the target has too.
    """
    report = open_source(source).scan(check="header")
    if not report.crops:
        raise InvalidArgument(
            f"--source: no usable crop: {report.describe()}; name a folder or manifest of labelled"
            " crops",
            field="source",
        )
    built = decode_crops(report.crops, target.preprocessing, cache, threads)
    identities = _identities(built.crops, read_labels(source), source)
    _refuse_shared(built, target.cache, source)
    cameras = camera_codes(built.crops, ignore=config.ignore_cameras).codes
    return SourceSet(
        built,
        identities,
        cameras if config.camera_aware else None,
        len(report.skipped) + len(built.skipped),
    )


def _identities(crops: tuple[CropRef, ...], labels: Labels, source: Path) -> NDArray[np.int64]:
    nobody = _NOBODY if labels.column is None else {"-1"}
    named = [labels.identity(crop.path) for crop in crops]
    people = sorted({name for name in named if name is not None and name not in nobody})
    if not people:
        raise InvalidArgument(
            f"--source {source}: none of its {len(crops)} crops has an identity; name the files in"
            " Market-1501 style (0002_c1s1_000451_03.jpg is person 2) or give a manifest with a"
            " column identity, or leave --source out",
            field="source",
            reason="NO_IDENTITIES",
        )
    if len(people) == 1:
        raise InvalidArgument(
            f"--source {source}: all its labelled crops are of one identity ({people[0]}), which"
            " teaches nothing; name a source with many",
            field="source",
            reason="ONE_IDENTITY",
        )
    codes = {name: code for code, name in enumerate(people)}
    found = (-1 if name is None else codes.get(name, -1) for name in named)
    return np.fromiter(found, dtype=np.int64, count=len(named))


def _refuse_shared(source: CropCache, target: CropCache, name: Path) -> None:
    """By pixels, which are the same under whatever name."""
    seen = {_digest(target, row): row for row in range(len(target))}
    shared = [
        (row, seen[digest])
        for row in range(len(source))
        if (digest := _digest(source, row)) in seen
    ]
    if shared:
        first, second = shared[0]
        raise InvalidArgument(
            f"--source {name}: {len(shared)} of its crops are in --crops too, the first is"
            f" {source.crops[first].path.name} ({target.crops[second].path.name} there); a labelled"
            " crop of the target would teach its identity: take them out of one of the two",
            field="source",
            reason="OVERLAP",
        )


def _digest(cache: CropCache, row: int) -> bytes:
    return hashlib.blake2b(cache.pixels[cache.rows[row]].tobytes(), digest_size=16).digest()
