"""A scanner by faiss with cuVS (package faiss-gpu-cuvs): one flat half-precision index a slab.

Written from faiss's sources; it has never run on a GPU. ``GpuIndexFlatIP`` with ``useFloat16``
keeps binary16, rounds queries to it and sums in float32; with ``use_cuvs`` its search takes an
``IDSelectorBitmap`` and hands it to cuVS's brute force as a bit set, which the classic kernels
accept and ignore. An index is filled by one ``add``, because its memory grows by exactly what
is added, with a copy of all that was there.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition
from service.gpu.scanner import Nearest, ScannerError

__all__ = ["FaissScanner"]

# What cuVS returns at most.
MAX_K = 16_384


class FaissScanner:
    """One GPU, by its number.

    Args:
        device: Number of the GPU.
        scratch_bytes: Memory set aside for the library's own use.

    Raises:
        FailedPrecondition: faiss is a build without GPU or without cuVS, or there is no such GPU.
    """

    max_k = MAX_K

    def __init__(self, device: int = 0, *, scratch_bytes: int = 1 << 30) -> None:
        self._faiss = _gpu_faiss(device)
        self._device = device
        self._resources = self._faiss.StandardGpuResources()
        self._resources.setTempMemory(scratch_bytes)

    def upload(self, vectors: NDArray[np.float32]) -> Any:
        """As Scanner."""
        faiss = self._faiss
        config = faiss.GpuIndexFlatConfig()
        config.device = self._device
        config.useFloat16 = True
        config.use_cuvs = True
        try:
            index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1], config)
            index.add(vectors)
        except RuntimeError as error:
            raise ScannerError(f"uploading {vectors.shape}: {error}") from error
        return index

    def search(
        self,
        handle: Any,
        queries: NDArray[np.float32],
        k: int,
        bitmap: NDArray[np.uint8] | None,
    ) -> Nearest:
        """As Scanner."""
        faiss = self._faiss
        # Made for this call: faiss may write to what it is given.
        chosen: dict[str, Any] = {}
        if bitmap is not None:
            chosen["params"] = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
        try:
            products, rows = handle.search(queries, k, **chosen)
        except RuntimeError as error:
            raise ScannerError(f"searching: {error}") from error
        return Nearest(products, rows)

    def release(self, handle: Any) -> None:
        """As Scanner."""
        handle.reset()
        # The Python object frees the rest when nobody holds it.


def _gpu_faiss(device: int) -> Any:
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError as error:
        raise _missing("faiss is not installed") from error
    if not hasattr(faiss, "StandardGpuResources"):
        raise _missing("the faiss that is installed has no GPU code")
    if not hasattr(faiss.GpuIndexFlatConfig(), "use_cuvs"):
        raise _missing("the faiss that is installed has no cuVS")
    count = faiss.get_num_gpus()
    if device >= count:
        raise FailedPrecondition(
            f"gpu.device is {device}, and faiss sees {count} GPUs; correct it, or set "
            "index.backend to segmented",
            field="gpu.device",
            reason="NO_GPU",
        )
    return faiss


def _missing(what: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"index.backend is gpu, but {what}; install resight[service-gpu] in an environment "
        "without faiss-cpu",
        field="index.backend",
        reason="EXTRA_MISSING",
    )
