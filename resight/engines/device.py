"""The GPU's memory and stream, through CUDA's runtime."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition

__all__ = ["CudaDevice", "Device", "open_device"]


class Device(Protocol):
    """What a session needs of a GPU."""

    @property
    def compute_capability(self) -> str:
        """Such as ``8.9``."""
        ...

    @property
    def stream(self) -> int:
        """Handle of the stream that everything runs on."""
        ...

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes of its memory."""
        ...

    def free(self, address: int) -> None:
        """Gives them back."""
        ...

    def upload(self, array: NDArray[Any], address: int) -> None:
        """Queues a copy to the GPU."""
        ...

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Queues a copy from the GPU into a contiguous array."""
        ...

    def synchronise(self) -> None:
        """Waits for all that is queued."""
        ...


def open_device() -> Device:
    """The first GPU this process may use.

    Raises:
        FailedPrecondition: There is none, or CUDA's Python package is missing.
    """
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise FailedPrecondition(
            f"device: CUDA's Python package is missing ({error}); it comes with the extras tensorrt"
            " and tensorrt-rtx",
            field="device",
            reason="BACKEND_MISSING",
        ) from error
    return CudaDevice(runtime)


class CudaDevice:
    """A GPU behind ``cuda.bindings.runtime``. Not run on a card by us yet."""

    def __init__(self, runtime: Any, ordinal: int = 0) -> None:
        self._cuda = runtime
        attribute = runtime.cudaDeviceAttr
        self._call("no GPU to be used", "cudaSetDevice", ordinal)
        major = self._call(
            "cudaDeviceGetAttribute",
            "cudaDeviceGetAttribute",
            attribute.cudaDevAttrComputeCapabilityMajor,
            ordinal,
        )
        minor = self._call(
            "cudaDeviceGetAttribute",
            "cudaDeviceGetAttribute",
            attribute.cudaDevAttrComputeCapabilityMinor,
            ordinal,
        )
        self.compute_capability = f"{int(major)}.{int(minor)}"
        self._stream = self._call("no stream", "cudaStreamCreate")
        self.stream = int(self._stream)

    def allocate(self, size: int) -> int:
        return int(self._call(f"no {size} bytes of its memory", "cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("its memory is not given back", "cudaFree", address)

    def upload(self, array: NDArray[Any], address: int) -> None:
        array = np.ascontiguousarray(array)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(
            "copy to it", "cudaMemcpyAsync",
            address, array.ctypes.data, array.nbytes, kind, self._stream,
        )  # fmt: skip
        self.synchronise()  # the array may be a temporary

    def download(self, address: int, array: NDArray[Any]) -> None:
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(
            "copy from it", "cudaMemcpyAsync",
            array.ctypes.data, address, array.nbytes, kind, self._stream,
        )  # fmt: skip

    def synchronise(self) -> None:
        self._call("waiting for it", "cudaStreamSynchronize", self._stream)

    def _call(self, what: str, function: str, *arguments: Any) -> Any:
        status, *values = getattr(self._cuda, function)(*arguments)
        if int(status) != 0:
            raise FailedPrecondition(
                f"device: {what}: {function} gives {status.name}; see `nvidia-smi`",
                field="device",
                reason="NO_DEVICE",
            )
        return values[0] if values else None
