"""Seeds, and the state of every generator, as plain values and tensors."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from adapt.training.distributed import current

__all__ = [
    "capture",
    "capture_every",
    "epoch_generator",
    "restore",
    "restore_own",
    "seed_everything",
]


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries underneath may draw from the legacy generator
    torch.manual_seed(seed)


def epoch_generator(seed: int, epoch: int, stream: int = 1) -> torch.Generator:
    """A CPU generator that depends on ``seed``, ``epoch`` and ``stream`` alone."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def capture(device: torch.device) -> dict[str, Any]:
    """State of all generators that this process draws from, loadable with ``weights_only``.

    Args:
        device: The process's own: of several ranks each draws dropout on its own GPU.
    """
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": {
            "keys": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "position": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore(state: Mapping[str, Any], device: torch.device) -> bool:
    """Takes back what ``capture`` gave.

    Returns:
        Whether all of it was; without a state for ``device`` its generator stays as it is.
    """
    random.setstate(state["python"])
    legacy = state["numpy"]
    keys = legacy["keys"].numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys, legacy["position"], legacy["has_gauss"], legacy["gauss"])
    )
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
    return (device.type == "cuda") == (state["cuda"] is not None)


def capture_every(device: torch.device) -> list[dict[str, Any]]:
    """``capture`` of each rank, in rank order."""
    return current().every(capture(device))


def restore_own(states: Sequence[Mapping[str, Any]], device: torch.device) -> bool:
    """Takes this rank's part of what ``capture_every`` gave back.

    With another number of ranks than then, all take the first one's, for what they draw in common
    (the weights of new heads) must stay in common.

    Returns:
        Whether this rank goes on drawing as it did.
    """
    ranks = current()
    same = len(states) == ranks.size
    return restore(states[ranks.rank if same else 0], device) and same
