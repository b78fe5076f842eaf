"""What follows the last epoch: batch-norm statistics re-estimated, the bundle written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adapt.backbones.embedder import Embedder
from adapt.data.augmentation import Normalisation
from adapt.export.attachments import RunCrops, make_attachments
from adapt.export.bundle import export_bundle
from adapt.export.graph import EncoderGraph
from adapt.export.model_card import describe_crops
from adapt.export.onnx_export import export_embedder
from adapt.training.batch_norm import reestimate, ungroup
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet
from adapt.training.finiteness import first_not_finite
from adapt.training.source_set import SourceSet
from resight.console import progress
from resight.errors import FailedPrecondition

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
    labels: NDArray[np.int64],
    files: Callable[[], Mapping[str, bytes]],
    warn: Callable[[str], object],
) -> str:
    """Writes the bundle of ``encoder``, whose batch norms are ungrouped; its model version.

    Args:
        graph: The network's trace, if there is one.
        source: Labelled crops that it learnt from, for the model card.
        labels: (N,) clusters of the last epoch, or none.
        files: To go into the bundle; asked for when everything else is known.
        warn: Told what was left out of the bundle.

    Raises:
        FailedPrecondition: The encoder holds what is not a number.
    """
    ungroup(encoder)
    if not isinstance(encoder, Embedder):
        raise TypeError("the encoder is not an Embedder")
    _require_finite(encoder)
    settings = config.model_dump(mode="json")
    settings["init"] = Path(settings["init"]).name if settings["init"] else "embedded"
    encoder = encoder.to("cpu").eval()
    exported = export_embedder(encoder, crops.preprocessing, graph=graph)
    run = RunCrops(crops.cache, labels, config.seed, config.ignore_cameras)
    attachments = make_attachments(exported.encoder, crops.preprocessing, run, config.export)
    for message in attachments.notes:
        warn(message)
    bundle = export_bundle(
        encoder,
        output=output,
        preprocessing=crops.preprocessing,
        method=config.method,
        run_id=run_id,
        config=settings,
        parent_version=parent_version,
        exported=exported,
        attachments=attachments,
        summary_files=files(),
        data=_described(crops, source),
        metrics=_clusters(labels),
    )
    version: str = bundle.manifest.model_version
    return version


def _require_finite(encoder: Embedder) -> None:
    if (name := first_not_finite(encoder.state_dict())) is not None:
        raise FailedPrecondition(
            f"{name} of the encoder is not finite: no bundle is written; start from other weights"
            " (--init), or with bn_reestimate=0 and precision=fp32",
            field="init",
            reason="WEIGHTS_NOT_FINITE",
        )


def _described(crops: CropSet, source: SourceSet | None) -> str:
    text = describe_crops(crops.cache.crops, skipped=len(crops.skipped))
    if source is None:
        return text
    counts = source.counts()
    return (
        f"{text}\n- {counts['usable']} labelled crops of {counts['identities']} people of another"
        " site; whoever ran this did not describe them"
    )


def _clusters(labels: NDArray[np.int64]) -> dict[str, str]:
    if not len(labels):
        return {}
    sizes = np.bincount(labels[labels >= 0])
    grouped = sizes > 1
    alone = len(labels) - int(sizes[grouped].sum())
    return {"Clusters of the last epoch": f"{int(grouped.sum())}; {alone} crops in none"}
