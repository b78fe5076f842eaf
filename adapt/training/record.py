"""run.json: all that is needed to make a run again."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from adapt.training.config import RunConfig
from adapt.training.device import describe_device
from resight import __version__

__all__ = ["run_record"]

_PACKAGES = ("torch", "timm", "numpy", "onnx", "onnxruntime", "faiss-cpu", "numba", "pillow")


def run_record(config: RunConfig, device: torch.device, **facts: Any) -> dict[str, Any]:
    """Resolved settings, seed, versions and machine, with further ``facts`` of the run."""
    return {
        "config": config.model_dump(mode="json"),
        "seed": config.seed,
        "device": describe_device(device),
        "versions": {"resight": __version__, "python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        **facts,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # an environment may ship another build under another name
            found[package] = "not installed"
    return found
