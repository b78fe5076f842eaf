"""How often the CPU did what the GPU was there for."""

from __future__ import annotations

from prometheus_client import Counter

from service.telemetry import REGISTRY

__all__ = ["GPU_FALLBACKS"]

GPU_FALLBACKS = Counter(
    "resight_gpu_fallbacks",
    "Work left to the CPU: a search whose device failed or answered what cannot be true, which "
    "ends its use (failed), segments that found no room there (no_room), slabs that were searched "
    "too deep for it (too_deep) or with a filter that it does not honour (no_bitmaps).",
    ("reason",),
    registry=REGISTRY,
)
