"""Backbones by name, with their weights: the one way to an :class:`Embedder`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from adapt.backbones.embedder import Embedder
from adapt.backbones.initialise import initialise
from adapt.backbones.lite0 import LITE0_MEAN, LITE0_STD, LITE0_TIMM_NAME
from adapt.backbones.osnet import OSNET_DIMENSION, OSNET_VARIANTS, OSNet
from adapt.backbones.pooling import build_pooling
from adapt.backbones.timm_backbone import TimmBackbone
from resight.errors import InvalidArgument

__all__ = ["DEFAULT_BACKBONE", "build_embedder"]

DEFAULT_BACKBONE = "efficientnet_lite0"
_TIMM = "timm:"


def build_embedder(
    name: str = DEFAULT_BACKBONE,
    *,
    pooling: str | None = None,
    neck: str | None = None,
    init: str | Path | None = None,
    last_stride: int | None = None,
    image_size: tuple[int, int] | None = None,
    seed: int | None = None,
) -> Embedder:
    """Return the network called ``name`` with the weights that ``init`` names.

    Args:
        name: ``efficientnet_lite0``, ``osnet_x0_25`` | ``x0_5`` | ``x0_75`` | ``x1_0``, the same
            with ``osnet_ain_``, or ``timm:`` and a name of timm's.
        pooling: ``avg``, ``gem`` or ``native`` (timm's own); by default what the backbone has.
        neck: ``bn`` or ``none``; by default ``none`` for OSNet, whose ``fc`` block ends in a batch
            norm of its own, and ``bn`` for the rest.
        init: ``embedded`` (or ``None``), ``random``, ``timm``, a ``.pth``, ``.pt`` or
            ``.safetensors`` file, or a bundle directory that holds ``weights.safetensors``.
        last_stride: 1 or 2, of the last stage of a ResNet or EfficientNet.
        image_size: Height and width in pixels, for vision transformers.
        seed: Of the random weights; the global generator is left as it was. ``None`` draws from
            the global generator.

    Returns:
        The embedder, in train mode, with ``init_report`` set.

    Raises:
        InvalidArgument: Unknown name or option, or weights of another network.
        Unavailable: ``init=timm`` without a network.
    """
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            embedder = _untrained(name, pooling, neck, init, last_stride, image_size)
    else:
        embedder = _untrained(name, pooling, neck, init, last_stride, image_size)
    embedder.init_report = initialise(embedder, init)
    return embedder


def _untrained(
    name: str,
    pooling: str | None,
    neck: str | None,
    init: str | Path | None,
    last_stride: int | None,
    image_size: tuple[int, int] | None,
) -> Embedder:
    if name in OSNET_VARIANTS:
        if last_stride is not None:
            raise InvalidArgument(
                f"{name} has no strided last stage: leave last_stride out", field="last_stride"
            )
        pooling = pooling or "avg"
        osnet = OSNet(OSNET_VARIANTS[name])
        return Embedder(
            osnet,
            build_pooling(pooling),
            dim=OSNET_DIMENSION,
            name=name,
            pooling_name=pooling,
            neck=neck or "none",
        )
    if name == DEFAULT_BACKBONE or name.startswith(_TIMM):
        return _timm_embedder(name, pooling, neck, init, last_stride, image_size)
    raise InvalidArgument(
        f"backbone {name!r} is unknown: use {', '.join([DEFAULT_BACKBONE, *OSNET_VARIANTS])} "
        "or timm:NAME",
        field="backbone",
    )


def _timm_embedder(
    name: str,
    pooling: str | None,
    neck: str | None,
    init: str | Path | None,
    last_stride: int | None,
    image_size: tuple[int, int] | None,
) -> Embedder:
    lite0 = name == DEFAULT_BACKBONE
    if last_stride not in (None, 1, 2):
        raise InvalidArgument(f"last_stride {last_stride} is not 1 or 2", field="last_stride")
    backbone = TimmBackbone(
        LITE0_TIMM_NAME if lite0 else name.removeprefix(_TIMM),
        pooling=pooling,
        pretrained=init == "timm",
        last_stride=last_stride,
        image_size=image_size,
    )
    native = backbone.pooling == "native"
    return Embedder(
        backbone,
        nn.Identity() if native else build_pooling(backbone.pooling),
        dim=backbone.dim,
        name=name,
        pooling_name=backbone.pooling,
        neck=neck or "bn",
        # timm's own weights for this network want timm's input statistics.
        mean=LITE0_MEAN if lite0 and init != "timm" else backbone.mean,
        std=LITE0_STD if lite0 and init != "timm" else backbone.std,
        options={"last_stride": str(backbone.last_stride)},
    )
