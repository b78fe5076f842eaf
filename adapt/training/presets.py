"""Values of the settings by preset and method; data only.

``published`` is each paper's recipe as its released code runs it, for a GPU. ``fast`` is minutes on
two CPU cores; its clustering values were chosen on Market-1501's validation identities, by the
purity and completeness of their clusters (docs/benchmarks.md). ``night`` is ``fast`` with twice the
epochs of twice the steps, half an hour there on Market-1501. Where none is named, a CUDA device
gets ``published`` and a CPU ``fast``, or ``night`` from ``resight adapt nightly``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS", "default_method", "preset_values"]

# Iterations are per epoch and follow from the number of crops: passes x crops / (p x k), bounded.
# On Market-1501's 12,936 crops that is 203 (published: 200) for Cluster Contrast and 405 (400) for
# SpCL; MSMT17's 32,621 reach the bounds, which are the published 400 and 800.
_PUBLISHED: Mapping[str, Any] = {
    "resize_filter": "bicubic",
    "epochs": 50,
    "lr": 3.5e-4,
    "weight_decay": 5e-4,
    "schedule": "step",
    "step_epochs": 20,
    "step_factor": 0.1,
    "temperature": 0.05,
    "eps": 0.6,
    "k1": 30,
    "k2": 6,
    "min_samples": 4,
    "precision": "amp",
    "channels_last": True,
    "extraction_batch": 256,
}
_FAST: Mapping[str, Any] = {
    "epochs": 5,
    "lr": 7e-4,
    "eps": 0.5,
    "k1": 20,
    "camera_centering": True,
    "p": 16,
    "k": 4,
    "passes": 1.0,
    "min_iterations": 10,
    "max_iterations": 100,
    "schedule": "cosine",
    "warmup_iterations": 10,
    "channels_last": True,
}

_Methods = Mapping[str, Mapping[str, Any]]
_PUBLISHED_METHODS: _Methods = {
    "cluster-contrast": {
        **_PUBLISHED,
        "p": 16,
        "k": 16,
        "bn_group": 64,
        "passes": 4.0,
        "max_iterations": 400,
        "momentum": 0.1,
        "features": "re-extract",
    },
    "spcl": {
        **_PUBLISHED,
        "p": 16,
        "k": 4,
        "bn_group": 16,
        "passes": 2.0,
        "max_iterations": 800,
        "momentum": 0.2,
        "features": "memory",
    },
    # Its own clustering is Infomap's; DBSCAN's values are those of the family.
    "calr": {
        **_PUBLISHED,
        "p": 16,
        "k": 16,
        "bn_group": 64,
        "passes": 4.0,
        "max_iterations": 400,
        "momentum": 0.1,
    },
    # eps is that of the variant without cameras; its authors take .4 on Market-1501 and .6 on
    # MSMT17 with them.
    "pplr": {
        **_PUBLISHED,
        "height": 384,
        "p": 16,
        "k": 4,
        "bn_group": 16,
        "passes": 2.0,
        "max_iterations": 400,
        "temperature": 0.07,
        "eps": 0.5,
    },
    # One pass an epoch, however many crops there are.
    "cap": {
        **_PUBLISHED,
        "p": 8,
        "k": 4,
        "passes": 1.0,
        "max_iterations": 1_000_000,
        "warmup_epochs": 10,
        "temperature": 0.07,
        "momentum": 0.2,
        "eps": 0.5,
        "k1": 20,
    },
    # As Cluster Contrast, whose control it is.
    "bn-stats": {
        "epochs": 0,
        "resize_filter": "bicubic",
        "p": 16,
        "k": 16,
        "bn_group": 64,
    },
}
_FAST_METHODS: _Methods = {
    "cluster-contrast": {**_FAST, "momentum": 0.1},
    # Most crops are in no cluster at first: with ``draw: every`` they fill the batches, and few
    # steps teach next to nothing (docs/benchmarks.md, ablations).
    "spcl": {
        **_FAST,
        "momentum": 0.2,
        "features": "re-extract",
        "spcl": {"draw": "clusters"},
    },
    # Local clusters of so short a first stage break people up: refinement by them costs mAP (there
    # too), so both are left out. Where they are not, stage 1 passes about twice over each camera.
    # Cosines are lower once cameras are centred.
    "calr": {
        **_FAST,
        "momentum": 0.1,
        "calr": {
            "refine": False,
            "intra_epochs": 2,
            "intra_iterations": 30,
            "intra_p": 16,
            "min_cosine": 0.3,
            "entropy_epoch": 1,
            "camera_epochs": 1,
        },
    },
    # What begins at the published 5 of 50 epochs begins at 1 of 5.
    "pplr": {**_FAST, "temperature": 0.07, "pplr": {"aals_epoch": 1}},
    # The intra-camera loss costs mAP in few steps, whatever the epoch of the other one (there too).
    "cap": {
        **_FAST,
        "momentum": 0.2,
        "cap": {"intra_weight": 0.0, "inter_epoch": 0, "draw": "cluster"},
    },
    "bn-stats": {"epochs": 0},
}
# Where there are epochs at all: each twice that of ``fast``, so that the length is four times its
# whatever the number of crops.
_NIGHT: Mapping[str, Any] = {
    "epochs": 10,
    "passes": 2.0,
    "min_iterations": 20,
    "max_iterations": 200,
}

PRESETS: Mapping[str, _Methods] = {
    "published": _PUBLISHED_METHODS,
    "fast": _FAST_METHODS,
    "night": {
        name: {**values, **_NIGHT} if values["epochs"] else values
        for name, values in _FAST_METHODS.items()
    },
}


def preset_values(preset: str, method: str) -> Mapping[str, Any]:
    """Settings of ``preset`` for ``method``; empty for names that are unknown."""
    return PRESETS.get(preset, {}).get(method, {})


def default_method(preset: str) -> str:
    """The most accurate method of ``preset`` (docs/decisions/0034-default-method.md)."""
    return "cluster-contrast" if preset == "published" else "cap"
