"""What a reader of a run's result should know before it begins."""

from __future__ import annotations

from collections.abc import Iterator

from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet
from adapt.training.source_set import SourceSet

__all__ = ["cautions"]


def cautions(
    asked: RunConfig,
    config: RunConfig,
    crops: CropSet,
    source: SourceSet | None,
    *,
    iterations: int,
    learns: bool,
) -> Iterator[str]:
    """Warnings about settings that do not fit the crops.

    Args:
        asked: The settings as given.
        config: The same as they are in force.
        iterations: Steps an epoch.
        learns: Whether the method trains.
    """
    batch, usable = config.p * config.k, len(crops.cache)
    yield from crops.cameras.notes
    if config.camera_centering and crops.cameras.codes is None:
        yield "camera_centering has no effect without cameras"
    if not learns:
        return
    if source is not None:
        yield from _of_the_source(source)
    if asked.bn_group not in (0, config.bn_group):
        yield (
            f"bn_group={asked.bn_group} does not divide the {config.bn_group} images of each rank:"
            f" {config.bn_group} are a group"
        )
    if usable < batch:
        yield f"{usable} crops are fewer than a batch of {batch}: batches repeat crops"
    if config.epochs == 0:
        yield "epochs=0: nothing is learnt"
    if config.preset == "published" and iterations * batch > 20 * usable:
        yield (
            f"an epoch of {iterations} x {batch} images passes over the {usable} crops"
            f" {iterations * batch / usable:.0f} times; lower iterations or p and k"
        )


def _of_the_source(source: SourceSet) -> Iterator[str]:
    if left := source.without_identity:
        yield f"{left} crops of the source have no identity and are left out"
    if source.skipped:
        yield f"{source.skipped} files of the source cannot be used"
