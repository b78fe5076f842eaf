"""The state of a run after an epoch, written atomically and read without unpickling code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapt.training.distributed import current
from resight.crops import CropRef, Preprocessing
from resight.errors import BundleCorrupt, FailedPrecondition

__all__ = [
    "Identity",
    "crop_set_digest",
    "differing_settings",
    "load_checkpoint",
    "network_digest",
    "save_checkpoint",
]

_FORMAT = 3
# How a run is computed may change between interruption and resumption; what it computes may not.
_FREE_KEYS = {"device", "threads", "prefetch", "extraction_batch", "rank_timeout"}


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to.

    Attributes:
        config: The resolved settings, as JSON values.
        network: Digest of the parameters' names, shapes and dtypes.
        crops: Digest of the crop set.
    """

    config: Mapping[str, Any]
    network: str
    crops: str


def network_digest(model: nn.Module) -> str:
    """Digest of names, shapes and dtypes of a model's state dict."""
    shapes = [(name, list(v.shape), str(v.dtype)) for name, v in model.state_dict().items()]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


def crop_set_digest(crops: Sequence[CropRef], preprocessing: Preprocessing) -> str:
    """Digest of the usable crops in order (name, size, camera, track, time) and the input size."""
    digest = hashlib.sha256()
    shape = [preprocessing.height, preprocessing.width, preprocessing.resize_filter]
    digest.update(json.dumps(shape).encode())
    for crop in crops:
        seen = crop.capture_time.isoformat() if crop.capture_time else None
        entry = [crop.path.name, crop.path.stat().st_size, crop.camera, crop.track, seen]
        digest.update(json.dumps(entry).encode())
    return digest.hexdigest()[:16]


def save_checkpoint(path: Path, identity: Identity, state: Mapping[str, Any]) -> None:
    """Writes ``state`` (tensors and plain values) so that ``path`` is always a whole checkpoint.

    Of several ranks the first writes.
    """
    if not current().first:
        return
    content = {
        "format": _FORMAT,
        "config": json.dumps(identity.config),
        "network": identity.network,
        "crops": identity.crops,
        **state,
    }
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_checkpoint(path: Path, identity: Identity) -> dict[str, Any]:
    """Reads a checkpoint of this very run.

    Raises:
        BundleCorrupt: The file is not a whole checkpoint.
        FailedPrecondition: It belongs to another network, other settings or other crops.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = Identity(json.loads(content["config"]), content["network"], content["crops"])
        version = content["format"]
    except Exception as error:
        raise BundleCorrupt(
            f"{path} is not a whole checkpoint ({type(error).__name__}); start anew with another"
            " --output",
            field="resume",
        ) from error
    if version != _FORMAT:
        raise FailedPrecondition(
            f"{path} has layout {version}, of another version of resight, not {_FORMAT}: start anew"
            " with another --output",
            field="resume",
        )
    _require_same(path, found, identity)
    return content


def differing_settings(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In words, the settings by which two runs come to different results."""
    keys = sorted((found.keys() | wanted.keys()) - _FREE_KEYS)
    return [
        f"{key} ({found.get(key)!r} there, {wanted.get(key)!r} now)"
        for key in keys
        if found.get(key) != wanted.get(key)
    ]


def _require_same(path: Path, found: Identity, wanted: Identity) -> None:
    differing = differing_settings(found.config, wanted.config)
    mend = "give the same settings and crops as the first run, or start anew with another --output"
    if differing:
        what = "was made with other settings: " + ", ".join(differing)
    elif found.network != wanted.network:
        what = "holds another network"
    elif found.crops != wanted.crops:
        what = "was made from another set of crops"
    else:
        return
    raise FailedPrecondition(
        f"checkpoint {path} {what}; {mend}", field="resume", reason="CHECKPOINT_MISMATCH"
    )
