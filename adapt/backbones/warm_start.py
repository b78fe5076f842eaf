"""An embedder as one safetensors file: what the next run starts from.

The file holds the whole embedder (backbone, pooling exponent, neck) and, as metadata, what is
needed to refuse it for another network.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from adapt.backbones.embedder import Embedder, InitReport
from resight.errors import InvalidArgument

__all__ = ["WARM_START_FILE", "is_warm_start", "load_warm_start", "save_warm_start"]

WARM_START_FILE = "weights.safetensors"
_FORMAT = "resight-embedder-1"


def save_warm_start(embedder: Embedder) -> bytes:
    """Return the file's content; the same weights give the same bytes."""
    tensors = {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in embedder.state_dict().items()
    }
    return bytes(save(tensors, metadata={"format": _FORMAT, "embedder": _description(embedder)}))


def is_warm_start(path: Path) -> bool:
    """Tell whether the file at ``path`` is one of :func:`save_warm_start`'s."""
    return path.suffix == ".safetensors" and _metadata(path).get("format") == _FORMAT


def load_warm_start(embedder: Embedder, path: Path, *, sha256: str) -> InitReport:
    """Load a file of :func:`save_warm_start` into an embedder of the same architecture.

    The input statistics come with the weights.

    Raises:
        InvalidArgument: It was made from another network; the message names each difference.
    """
    described = json.loads(_metadata(path)["embedder"])
    wanted = json.loads(_description(embedder))
    statistics = {"mean", "std"}
    differences = [
        f"{key} {described.get(key)!r} instead of {wanted[key]!r}"
        for key in wanted
        if key not in statistics and described.get(key) != wanted[key]
    ]
    if differences:
        raise InvalidArgument(
            f"{path} holds another network: {'; '.join(differences)}. Set these to the file's "
            "values, or start from other weights",
            field="init",
        )
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        embedder.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidArgument(
            f"{path} does not fit the network its own metadata names: {error}", field="init"
        ) from error
    embedder.mean, embedder.std = tuple(described["mean"]), tuple(described["std"])
    return InitReport(kind="warm-start", source=str(path), sha256=sha256, loaded=len(state))


def _description(embedder: Embedder) -> str:
    description = {
        "backbone": embedder.name,
        "pooling": embedder.pooling_name,
        "neck": embedder.neck_name,
        "dim": embedder.dim,
        "mean": list(embedder.mean),
        "std": list(embedder.std),
        "options": embedder.options,
    }
    return json.dumps(description, sort_keys=True)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise InvalidArgument(f"{path} is not a safetensors file: {error}", field="init") from error
