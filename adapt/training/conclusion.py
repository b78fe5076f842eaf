"""What follows the last epoch: batch-norm statistics re-estimated, the bundle written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from adapt.backbones.embedder import Embedder
from adapt.data.augmentation import Normalisation
from adapt.export.bundle import export_bundle
from adapt.export.graph import EncoderGraph
from adapt.training.batch_norm import reestimate, ungroup
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet
from adapt.training.source_set import SourceSet
from resight.console import progress

__all__ = ["estimation_batches", "finish_batch_norm", "write_bundle"]


def estimation_batches(config: RunConfig, crops: int, *, learns: bool) -> int:
    """Batches over which statistics are averaged; all crops where nothing was learnt."""
    if config.bn_reestimate or learns:
        return config.bn_reestimate
    return -(-crops // (config.p * config.k))


def finish_batch_norm(
    encoder: nn.Module,
    config: RunConfig,
    crops: CropSet,
    normalise: Normalisation,
    *,
    batches: int,
    device: torch.device,
) -> int:
    """Averages batch statistics over ``batches`` batches of crops drawn by the run's seed.

    Returns:
        Batches used; 0 when the network has no batch norm or there are too few crops.
    """
    size = config.p * config.k
    order = np.random.default_rng(config.seed).permutation(len(crops.cache))
    with progress("batch-norm statistics", batches) as bar:

        def images() -> Iterator[Tensor]:
            for start in range(0, min(batches * size, len(order)), size):
                pixels = crops.cache.gather(order[start : start + size])
                yield normalise(torch.from_numpy(pixels).to(device)).contiguous()
                bar.advance(1)

        return reestimate(encoder, images())


def write_bundle(
    encoder: nn.Module,
    config: RunConfig,
    crops: CropSet,
    *,
    output: Path,
    run_id: str,
    parent_version: str,
    graph: EncoderGraph | None,
    source: SourceSet | None,
    files: Mapping[str, bytes],
) -> str:
    """Writes the bundle of ``encoder``, whose batch norms are ungrouped; its model version.

    Args:
        graph: The network's trace, if there is one.
        source: Labelled crops that it learnt from, for the model card.
        files: To go into the bundle.
    """
    ungroup(encoder)
    if not isinstance(encoder, Embedder):
        raise TypeError("the encoder is not an Embedder")
    settings = config.model_dump(mode="json")
    settings["init"] = Path(settings["init"]).name if settings["init"] else "embedded"
    bundle = export_bundle(
        encoder.to("cpu").eval(),
        output=output,
        preprocessing=crops.preprocessing,
        method=config.method,
        run_id=run_id,
        config=settings,
        parent_version=parent_version,
        graph=graph,
        summary_files=files,
        data="" if source is None else _described(source),
    )
    version: str = bundle.manifest.model_version
    return version


def _described(source: SourceSet) -> str:
    counts = source.counts()
    return (
        f"Unlabelled crops, and {counts['usable']} labelled crops of {counts['identities']} people"
        " of another site; whoever ran this did not describe them."
    )
