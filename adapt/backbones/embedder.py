"""The trainable encoder: backbone, pooling, neck.

The neck is that of Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person
Re-identification", CVPRW 2019: a batch norm whose bias stays zero, so that its output keeps the
origin as the centre that the cosine needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from resight.errors import InvalidArgument

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Embedder", "FeatureBackbone", "InitReport", "Neck"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Neck = Literal["bn", "none"]


class FeatureBackbone(nn.Module, ABC):
    """What an :class:`Embedder` asks of its backbone."""

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return what the pooling takes, (B, C, H', W')."""

    @abstractmethod
    def embed(self, pooled: Tensor) -> Tensor:
        """Return (B, dim) of pooled features (B, C)."""


@dataclass(frozen=True)
class InitReport:
    """Where an embedder's weights came from.

    Attributes:
        kind: ``embedded``, ``random``, ``timm``, ``state-dict``, ``warm-start`` (the file of a
            bundle, without the bundle) or ``bundle``.
        source: File, package or model name.
        sha256: Of the file read, lower-case hex; empty when none was read.
        loaded: Number of tensors taken.
        dropped: Tensors of the file that this network has no use for: classifier heads.
        parent_version: Model version of the bundle, when it came from one.
    """

    kind: Literal["embedded", "random", "timm", "state-dict", "warm-start", "bundle"]
    source: str
    sha256: str = ""
    loaded: int = 0
    dropped: tuple[str, ...] = field(default=())
    parent_version: str = ""


class Embedder(nn.Module):
    """Normalised images to features.

    Args:
        backbone: The convolutional (or other) trunk.
        pooling: Module from maps (B, C, H', W') to (B, C).
        name: Name that :func:`adapt.backbones.build.build_embedder` knows the backbone by.
        pooling_name: ``avg``, ``gem`` or ``native``.
        neck: ``bn`` or ``none``.
        mean: Per-channel mean that the input was normalised with, on the 0..1 scale.
        std: Per-channel standard deviation, likewise.
        options: What else :func:`build_embedder` needs to build the same network again.

    Attributes:
        dim: Dimension of the feature.
        init_report: Where the weights came from; set by ``build_embedder``.
    """

    def __init__(
        self,
        backbone: FeatureBackbone,
        pooling: nn.Module,
        *,
        dim: int,
        name: str,
        pooling_name: str,
        neck: str,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        options: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.dim = dim
        self.name = name
        self.pooling_name = pooling_name
        self.neck_name = neck
        self.mean = _triple(mean)
        self.std = _triple(std)
        self.options = dict(options or {})
        self.neck = _build_neck(neck, dim)
        self.init_report = InitReport(kind="random", source="")

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, dim), not L2-normalised, of normalised images (B, 3, H, W)."""
        return self.forward_with_maps(images)[0]

    def forward_with_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The features and the maps (B, C, H', W') that they were pooled from."""
        maps = self.backbone.features(images)
        result: Tensor = self.neck(self.backbone.embed(self.pooling(maps)))
        return result, maps


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _build_neck(name: str, dim: int) -> nn.Module:
    if name == "none":
        return nn.Identity()
    if name != "bn":
        raise InvalidArgument(f"neck {name!r} is unknown: use bn or none", field="neck")
    neck = nn.BatchNorm1d(dim)
    neck.bias.requires_grad_(False)
    torch.nn.init.ones_(neck.weight)
    return neck
