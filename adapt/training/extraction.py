"""Features of all cached crops with the present encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adapt.backbones.embedder import Embedder
from adapt.data.augmentation import Normalisation
from adapt.data.cache import CropCache
from adapt.data.loader import load
from adapt.export.fast_features import OrtExtractor
from adapt.methods.method import Features
from adapt.training.config import RunConfig
from adapt.training.device import Precision
from adapt.training.distributed import current
from resight.console import progress

__all__ = [
    "Extractor",
    "PartHead",
    "choose_extractor",
    "extract",
    "forward_with_maps",
    "index_batches",
    "onnx_session",
]

PartHead = Callable[[Tensor], Tensor]


class Extractor(Protocol):
    """Features of all crops of a run."""

    def __call__(self, model: nn.Module, parts: PartHead | None = None) -> Features:
        """By ``model`` as it is now; ``parts`` as in :func:`extract`."""
        ...


def index_batches(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Indices 0..count-1 in order, ``size`` at a time."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count), dtype=np.int64)


@torch.inference_mode()
def extract(
    model: nn.Module,
    cache: CropCache,
    normalise: Normalisation,
    *,
    device: torch.device,
    batch: int,
    precision: Precision,
    channels_last: bool = False,
    advance: Callable[[int], None] = lambda _count: None,
    parts: PartHead | None = None,
) -> Features:
    """Features of all crops by ``model`` in evaluation mode, through torch.

    Each rank extracts its part of the batches and is given the others'.

    Args:
        parts: Maps (B, C, H', W') to part features (B, P, E), which are then extracted too.
    """
    was_training = model.training
    model.eval()
    rows: list[NDArray[np.float32]] = []
    part_rows: list[NDArray[np.float32]] = []
    for images, indices in load(cache, _own_batches(len(cache), batch), device=device):
        inputs = normalise(images)
        inputs = inputs if channels_last else inputs.contiguous()
        with precision.autocast():
            if parts is None:
                output = model(inputs)
            else:
                output, maps = forward_with_maps(model, inputs)
        if parts is not None:
            part_rows.append(_unit(parts(maps.float())))
        rows.append(_unit(output.float()))
        advance(len(indices))
    model.train(was_training)
    return Features(_joined(rows), None if parts is None else _joined(part_rows))


def _own_batches(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """This rank's part of the batches, each whole, so that its rows are what one process gets."""
    every = list(index_batches(count, size))
    return iter(every[current().portion(len(every))])


def _joined(own: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    every = current().collect(np.concatenate(own) if own else None)
    if every is None:
        raise ValueError("no crops")
    return every


def forward_with_maps(model: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Features and backbone maps of ``model``, which must be an :class:`Embedder`."""
    if not isinstance(model, Embedder):
        raise TypeError(f"{type(model).__name__} gives no feature maps")
    return model.forward_with_maps(inputs)


def _unit(features: Tensor) -> NDArray[np.float32]:
    result: NDArray[np.float32] = functional.normalize(features, dim=-1).cpu().numpy()
    return result


def onnx_session(
    embedder: Embedder, config: RunConfig, device: torch.device, *, maps: bool = False
) -> OrtExtractor | None:
    """The ONNX Runtime session that ``config.extraction`` asks for; ``auto`` is one on a CPU.

    Args:
        embedder: The network before training, to trace; a network that cannot be exported is so
            found out before the training and not after.
        maps: Whether parts will be extracted, which are made from the backbone's maps.

    Raises:
        InvalidArgument: ONNX extraction, and the network cannot be exported.
    """
    if config.extraction == "torch" or (config.extraction == "auto" and device.type != "cpu"):
        return None
    return OrtExtractor(
        embedder,
        config.height,
        config.width,
        config.threads or torch.get_num_threads(),
        batch=config.extraction_batch,
        maps=maps,
    )


def choose_extractor(
    session: OrtExtractor | None,
    config: RunConfig,
    cache: CropCache,
    normalise: Normalisation,
    device: torch.device,
) -> Extractor:
    """Extraction through ``session`` where there is one, else through torch."""
    precision = Precision(config.precision if device.type == "cuda" else "fp32", device)

    def run(model: nn.Module, parts: PartHead | None = None) -> Features:
        own = sum(map(len, _own_batches(len(cache), config.extraction_batch)))
        with progress("extract features", own) as bar:
            if session is not None and isinstance(model, Embedder):
                session.refresh(model)
                batch = config.extraction_batch
                if parts is None:
                    return Features(_extract_onnx(session, cache, batch, bar.advance))
                return _parts_onnx(session, cache, batch, bar.advance, parts, device)
            return extract(
                model,
                cache,
                normalise,
                device=device,
                batch=config.extraction_batch,
                precision=precision,
                channels_last=config.channels_last,
                advance=bar.advance,
                parts=parts,
            )

    return run


def _extract_onnx(
    session: OrtExtractor, cache: CropCache, batch: int, advance: Callable[[int], None]
) -> NDArray[np.float32]:
    rows = []
    for indices in _own_batches(len(cache), batch):
        rows.append(session.extract(cache.gather(indices)))
        advance(len(indices))
    return _joined(rows)


@torch.inference_mode()
def _parts_onnx(
    session: OrtExtractor,
    cache: CropCache,
    batch: int,
    advance: Callable[[int], None],
    parts: PartHead,
    device: torch.device,
) -> Features:
    rows: list[NDArray[np.float32]] = []
    part_rows: list[NDArray[np.float32]] = []
    for indices in _own_batches(len(cache), batch):
        for features, maps in session.extract_with_maps(cache.gather(indices)):
            rows.append(features)
            part_rows.append(_unit(parts(torch.from_numpy(maps).to(device))))
        advance(len(indices))
    return Features(_joined(rows), _joined(part_rows))
