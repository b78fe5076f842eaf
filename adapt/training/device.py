"""Device, precision, threads and determinism of a run."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from adapt.training.config import RunConfig
from adapt.training.distributed import local_rank, local_size
from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["Precision", "describe_device", "select_device", "set_threads"]


class Precision:
    """Autocast and gradient scaling for ``precision`` on ``device``.

    ``amp`` is bfloat16 where the processor computes with it natively; else float16 with gradient
    scaling on a GPU and float32 on a CPU, where emulation only costs. ``bf16`` is bfloat16
    anywhere.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.dtype: torch.dtype | None = None
        if precision == "bf16":
            self.dtype = torch.bfloat16
        elif precision == "amp" and device.type == "cuda":
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            self.dtype = torch.bfloat16 if bf16 else torch.float16
        elif precision == "amp" and device.type == "cpu" and _cpu_has_bf16():
            self.dtype = torch.bfloat16
        self._device_type = device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    @property
    def scales(self) -> bool:
        """Whether gradients are scaled, and a step may overflow."""
        return self.scaler.is_enabled()

    @property
    def name(self) -> str:
        """The precision in force."""
        return "float32" if self.dtype is None else str(self.dtype).removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[object]:
        """Context of the forward pass."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self._device_type, dtype=self.dtype)


def _cpu_has_bf16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def select_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA where there is one.

    Of several processes on a machine each has the GPU of its number.

    Raises:
        InvalidArgument: No such kind of device.
        FailedPrecondition: The device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidArgument(f"device {name!r}: use auto, cpu or cuda", field="device") from error
    if device.type not in {"cpu", "cuda"}:
        raise InvalidArgument(f"device {name!r}: use auto, cpu or cuda", field="device")
    if device.type == "cuda" and local_size() > 1:
        device = _own_gpu(device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise FailedPrecondition(
            f"device {name!r} is not there: torch sees {torch.cuda.device_count()} CUDA devices;"
            " use device=cpu",
            field="device",
        )
    return device


def _own_gpu(device: torch.device) -> torch.device:
    if ":" in str(device):
        raise InvalidArgument(
            f"device {device}: {local_size()} processes of one run would share it; use"
            " device=cuda, which gives each its own",
            field="device",
        )
    if local_rank() >= torch.cuda.device_count():
        raise FailedPrecondition(
            f"torchrun started {local_size()} processes here and torch sees"
            f" {torch.cuda.device_count()} GPUs: start one for each GPU, or use device=cpu",
            field="device",
        )
    return torch.device("cuda", local_rank())


def set_threads(config: RunConfig) -> int:
    """Applies ``threads`` (0 = this process's part of those it may use) and ``deterministic``."""
    count = config.threads or max(1, len(os.sched_getaffinity(0)) // local_size())
    torch.set_num_threads(count)
    if config.deterministic:
        # cuBLAS asks for this before its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.deterministic)
    torch.backends.cudnn.benchmark = not config.deterministic
    return count


def describe_device(device: torch.device) -> str:
    """Words for the run's record."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()})"
