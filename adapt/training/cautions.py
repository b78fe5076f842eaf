"""What a reader of a run's result should know before it begins."""

from __future__ import annotations

from collections.abc import Iterator

from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet
from adapt.training.effects import without_effect
from adapt.training.schedule import warmup_steps
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
    yield from crops.constraints.notes
    yield from without_effect(asked, iterations)
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
    yield from _never_reached(config, iterations)
    if config.method == "calr":
        yield from _of_the_first_stage(config)
    if config.preset == "published" and iterations * batch > 20 * usable:
        yield (
            f"an epoch of {iterations} x {batch} images passes over the {usable} crops"
            f" {iterations * batch / usable:.0f} times; lower iterations or p and k"
        )


def _never_reached(config: RunConfig, iterations: int) -> Iterator[str]:
    """What would begin after the end; ``epochs=0`` is said elsewhere."""
    epochs = config.epochs
    if not epochs:
        return
    begins = {
        "cap.inter_epoch": ("cap", bool(config.cap.inter_weight), config.cap.inter_epoch),
        "calr.entropy_epoch": ("calr", config.calr.entropy_weights, config.calr.entropy_epoch),
        "pplr.aals_epoch": (
            "pplr",
            config.pplr.aals and config.pplr.parts > 0,
            config.pplr.aals_epoch,
        ),
    }
    for key, (method, wanted, epoch) in begins.items():
        if method == config.method and wanted and epoch >= epochs:
            yield (
                f"{key}={epoch} is never reached in {epochs} epochs (counted from 0): lower it, or"
                " raise epochs"
            )
    if (warmup := warmup_steps(config, iterations)) >= epochs * iterations:
        yield (
            f"a warm-up of {warmup} steps covers the whole run of {epochs * iterations}: lower"
            " warmup_iterations or warmup_epochs"
        )


def _of_the_first_stage(config: RunConfig) -> Iterator[str]:
    calr = config.calr
    if not calr.refine:
        yield (
            "calr.refine=false leaves the first stage out: calr.intra_* and calr.local_clusters.*"
            " have no effect"
        )
        return
    warmup = warmup_steps(config, calr.intra_iterations)
    steps = calr.intra_epochs * calr.intra_iterations
    if steps and warmup >= steps:
        yield (
            f"a warm-up of {warmup} steps would cover the {steps} of each camera's stage: it has"
            " none there"
        )


def _of_the_source(source: SourceSet) -> Iterator[str]:
    if left := source.without_identity:
        yield f"{left} crops of the source have no identity and are left out"
    if source.skipped:
        yield f"{source.skipped} files of the source cannot be used"
