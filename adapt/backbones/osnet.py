"""OSNet, the omni-scale network, and its instance-normalised variant.

Zhou et al., "Omni-Scale Feature Learning for Person Re-Identification", ICCV 2019, and "Learning
Generalisable Omni-Scale Representations for Person Re-Identification" (AIN), TPAMI 2021.

With ``Lite`` the lite 3x3 convolution (a linear 1x1 point-wise one, then a 3x3 depth-wise one,
batch norm and ReLU), a block computes

    x^t = Lite^t(reduce(x)),  t = 1..4             the stream with receptive field 2t + 1 (eq. 3)
    y   = x + expand(sum_t G(x^t) * x^t)           the unified aggregation gate G (eq. 4)

where G is one small network shared by the four streams: global average, two 1x1 convolutions with
a reduction of 16, sigmoid. AIN puts an instance norm after ``expand``, before the sum with x, in
the blocks its search chose, and in the first convolution.

Parameter names follow the layout of the published checkpoints, so that these load unchanged.

Intended deviations: the classifier is left out (the feature is the output of ``fc``), and global
pooling is a module of the caller's, average by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from adapt.backbones.embedder import FeatureBackbone

__all__ = ["OSNET_DIMENSION", "OSNET_VARIANTS", "OSNet", "OSNetVariant"]

OSNET_DIMENSION = 512
_STREAMS = 4
_BOTTLENECK = 4
_GATE_REDUCTION = 16
_WIDTHS = {
    "x1_0": (64, 256, 384, 512),
    "x0_75": (48, 192, 288, 384),
    "x0_5": (32, 128, 192, 256),
    "x0_25": (16, 64, 96, 128),
}
# Which of the two blocks of each stage carry the instance norm in the architecture that the AIN
# paper's search found.
_AIN_BLOCKS = ((True, True), (False, True), (True, False))


@dataclass(frozen=True)
class OSNetVariant:
    """A member of the family.

    Attributes:
        channels: Channels after the stem and after each of the three stages.
        instance_norm: Whether it is the AIN network.
    """

    channels: tuple[int, int, int, int]
    instance_norm: bool


OSNET_VARIANTS: dict[str, OSNetVariant] = {
    f"osnet_{'ain_' if ain else ''}{width}": OSNetVariant(channels, ain)
    for ain in (False, True)
    for width, channels in _WIDTHS.items()
}


class _Convolution(nn.Module):
    """Convolution, normalisation and, unless ``linear``, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        linear: bool = False,
        norm: Literal["batch", "instance", "none"] = "batch",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module | None = _normalisation(outputs, norm)
        self._linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return x if self._linear else torch.relu(x)


def _normalisation(channels: int, norm: Literal["batch", "instance", "none"]) -> nn.Module | None:
    if norm == "none":
        return None
    return (
        nn.InstanceNorm2d(channels, affine=True) if norm == "instance" else nn.BatchNorm2d(channels)
    )


class _LiteConvolution(nn.Module):
    """``Lite``: linear point-wise, then depth-wise 3x3, batch norm, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv2(self.conv1(x))))


class _Stream(nn.Module):
    """``Lite^t`` as the AIN checkpoints name it."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_LiteConvolution(channels) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class _AggregationGate(nn.Module):
    """``G(x) * x`` with a weight in (0, 1) for each channel of each image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _GATE_REDUCTION, 1)
        self.fc2 = nn.Conv2d(channels // _GATE_REDUCTION, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(squeezed))))


class _OmniScaleBlock(nn.Module):
    """Four gated streams inside a residual bottleneck."""

    def __init__(self, inputs: int, outputs: int, *, ain_names: bool, instance: bool) -> None:
        super().__init__()
        middle = outputs // _BOTTLENECK
        depths = range(1, _STREAMS + 1)
        self.conv1 = _Convolution(inputs, middle)
        if ain_names:
            self.conv2 = nn.ModuleList(_Stream(middle, depth) for depth in depths)
        else:
            self.conv2a = _LiteConvolution(middle)
            self.conv2b, self.conv2c, self.conv2d = (
                nn.Sequential(*(_LiteConvolution(middle) for _ in range(depth)))
                for depth in depths[1:]
            )
        self._ain_names = ain_names
        self.gate = _AggregationGate(middle)
        self.conv3 = _Convolution(
            middle, outputs, linear=True, norm="none" if instance else "batch"
        )
        if inputs != outputs:
            self.downsample: nn.Module | None = _Convolution(inputs, outputs, linear=True)
        else:
            self.downsample = None
        self.IN = nn.InstanceNorm2d(outputs, affine=True) if instance else None

    def _streams(self) -> list[nn.Module]:
        if self._ain_names:
            return list(self.conv2)
        return [self.conv2a, self.conv2b, self.conv2c, self.conv2d]

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        first, *rest = (self.gate(stream(reduced)) for stream in self._streams())
        expanded = self.conv3(sum(rest, start=first))
        if self.IN is not None:
            expanded = self.IN(expanded)
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(expanded + shortcut)


def _stage(inputs: int, outputs: int, *, ain: bool, instance: Sequence[bool]) -> list[nn.Module]:
    return [
        _OmniScaleBlock(inputs if index == 0 else outputs, outputs, ain_names=ain, instance=norm)
        for index, norm in enumerate(instance)
    ]


def _reduction(channels: int) -> nn.Sequential:
    """The transition that halves height and width."""
    return nn.Sequential(_Convolution(channels, channels), nn.AvgPool2d(2, 2))


class OSNet(FeatureBackbone):
    """The network without its classifier.

    Args:
        variant: Widths and kind; see :data:`OSNET_VARIANTS`.
    """

    def __init__(self, variant: OSNetVariant) -> None:
        super().__init__()
        stem, first, second, third = variant.channels
        ain = variant.instance_norm
        blocks = _AIN_BLOCKS if ain else ((False, False),) * 3
        self.conv1 = _Convolution(3, stem, kernel=7, stride=2, norm="instance" if ain else "batch")
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages = [
            _stage(stem, first, ain=ain, instance=blocks[0]),
            _stage(first, second, ain=ain, instance=blocks[1]),
            _stage(second, third, ain=ain, instance=blocks[2]),
        ]
        transitions = [_reduction(first), _reduction(second)]
        if ain:
            self.conv2, self.conv3, self.conv4 = (nn.Sequential(*stage) for stage in stages)
            self.pool2, self.pool3 = transitions
        else:
            self.conv2 = nn.Sequential(*stages[0], transitions[0])
            self.conv3 = nn.Sequential(*stages[1], transitions[1])
            self.conv4 = nn.Sequential(*stages[2])
        self.conv5 = _Convolution(third, third)
        self.fc = nn.Sequential(
            nn.Linear(third, OSNET_DIMENSION), nn.BatchNorm1d(OSNET_DIMENSION), nn.ReLU()
        )
        self._ain = ain
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map, (B, C, H/16, W/16), of images (B, 3, H, W)."""
        x: Tensor = self.maxpool(self.conv1(images))
        x = self.conv2(x)
        x = self.conv3(self.pool2(x) if self._ain else x)
        x = self.conv4(self.pool3(x) if self._ain else x)
        result: Tensor = self.conv5(x)
        return result

    def embed(self, pooled: Tensor) -> Tensor:
        """Return the 512-d feature of pooled maps (B, C)."""
        result: Tensor = self.fc(pooled)
        return result

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, 512) features of normalised images (B, 3, H, W), with average pooling."""
        return self.embed(self.features(images).mean(dim=(2, 3)))
