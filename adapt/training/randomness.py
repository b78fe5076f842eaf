"""Seeds, and the state of every generator, as plain values and tensors."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["capture", "epoch_generator", "restore", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch on all devices."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # libraries underneath may draw from the legacy generator
    torch.manual_seed(seed)


def epoch_generator(seed: int, epoch: int, stream: int = 1) -> torch.Generator:
    """A CPU generator that depends on ``seed``, ``epoch`` and ``stream`` alone."""
    state = np.random.SeedSequence([seed, epoch, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> 1))


def capture() -> dict[str, Any]:
    """State of all global generators, loadable with ``weights_only``."""
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
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(state: Mapping[str, Any]) -> None:
    """Takes back what ``capture`` gave; CUDA's only where as many devices are there."""
    random.setstate(state["python"])
    legacy = state["numpy"]
    keys = legacy["keys"].numpy().astype(np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", keys, legacy["position"], legacy["has_gauss"], legacy["gauss"])
    )
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
