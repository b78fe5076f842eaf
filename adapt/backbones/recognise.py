"""Which backbone a state dict most likely belongs to, for the error that says it does not fit."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adapt.backbones.osnet import OSNET_VARIANTS

__all__ = ["recognise"]

# Blocks in the four stages, and whether they are bottlenecks.
_RESNETS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def recognise(state: Mapping[str, Tensor]) -> str:
    """Return the name that :func:`build_embedder` would take for these weights, or ``""``."""
    if "conv1.conv.weight" in state and "fc.0.weight" in state:
        return _recognise_osnet(state)
    if "_conv_stem.weight" in state or "conv_stem.weight" in state:
        return (
            "efficientnet_lite0"
            if not any("se_reduce" in k or ".se." in k for k in state)
            else "timm:efficientnet_…"
        )
    if "layer4.0.conv1.weight" in state:
        return _recognise_resnet(state)
    if "patch_embed.proj.weight" in state:
        return "timm:vit_…, a vision transformer"
    return ""


def _recognise_osnet(state: Mapping[str, Tensor]) -> str:
    stem = state["conv1.conv.weight"].shape[0]
    ain = any(".IN." in name for name in state)
    for name, variant in OSNET_VARIANTS.items():
        if variant.channels[0] == stem and variant.instance_norm == ain:
            return name
    return ""


def _recognise_resnet(state: Mapping[str, Tensor]) -> str:
    blocks = tuple(
        len({name.split(".")[1] for name in state if name.startswith(f"layer{stage}.")})
        for stage in range(1, 5)
    )
    name = _RESNETS.get((blocks, "layer4.0.conv3.weight" in state))
    return f"timm:{name}" if name else "timm:resnet…"
