"""Joins the processes that ``torchrun`` started: the verbs of ``Ranks`` by Gloo or NCCL.

``current()`` is what this process belongs to; a process of its own is the ``Ranks`` of one.
"""

from __future__ import annotations

import atexit
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from adapt.training.ranks import Ranks
from resight.console import silence
from resight.errors import FailedPrecondition, ResightError, Unavailable

__all__ = ["current", "joined", "local_rank", "local_size"]

T = TypeVar("T")
# The shape of a gathered array is sent as so many numbers.
_DIMENSIONS = 4


class _Joined(Ranks):
    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def gather(self, share: Tensor) -> Tensor:
        result: Tensor = _Gather.apply(share, self)
        return result

    def collect(self, rows: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        sizes = torch.zeros(_DIMENSIONS, dtype=torch.int64)
        if rows is not None:
            sizes[: rows.ndim] = torch.tensor(rows.shape)
        table = sizes.new_empty((self.size * _DIMENSIONS,))
        self._call(dist.all_gather_into_tensor, table, sizes)
        shapes = table.view(self.size, _DIMENSIONS)
        wide = [int(size) for size in shapes[:, 1:].amax(dim=0) if size]
        if not wide:
            return None
        counts = shapes[:, 0].tolist()
        parts = [np.empty((count, *wide), dtype=np.float32) for count in counts]
        if rows is not None:
            parts[self.rank] = np.ascontiguousarray(rows, dtype=np.float32)
        for source, part in enumerate(parts):
            if len(part):
                self._call(dist.broadcast, torch.from_numpy(part), source)
        return np.concatenate(parts)

    def sum_gradients(self, own: Iterable[Tensor], common: Iterable[Tensor]) -> None:
        summed = [p.grad for p in own if p.grad is not None]
        averaged = [p.grad for p in common if p.grad is not None]
        for gradient in averaged:
            gradient /= self.size
        self._sum([*summed, *averaged])

    def average(self, tensors: Iterable[Tensor]) -> None:
        held = list(tensors)
        self._sum(held)
        for tensor in held:
            tensor /= self.size

    def every(self, value: T) -> list[T]:
        stream = io.BytesIO()
        torch.save(value, stream)
        sent = [self._send(stream.getvalue(), source) for source in range(self.size)]
        return [value if source == self.rank else _loaded(data) for source, data in enumerate(sent)]

    def once(self, compute: Callable[[], T]) -> T:
        stream = io.BytesIO()
        if self.first:
            value = compute()
            torch.save(value, stream)
        data = self._send(stream.getvalue(), 0)
        if self.first:
            return value
        received: T = _loaded(data)
        return received

    def wait(self) -> None:
        self._call(dist.all_reduce, torch.zeros(1))

    def all_gather(self, share: Tensor) -> Tensor:
        """As ``gather``, without gradient."""
        share = share.contiguous()
        whole = share.new_empty((self.size * len(share), *share.shape[1:]))
        self._call(dist.all_gather_into_tensor, whole, share)
        return whole

    def _send(self, own: bytes, source: int) -> bytearray:
        """What ``source`` has, on every rank; ``own`` counts there alone."""
        sends = source == self.rank
        length = torch.tensor([len(own) if sends else 0])
        self._call(dist.broadcast, length, source)
        data = bytearray(own) if sends else bytearray(int(length))
        self._call(dist.broadcast, torch.frombuffer(data, dtype=torch.uint8), source)
        return data

    def _sum(self, tensors: Sequence[Tensor]) -> None:
        if not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._call(dist.all_reduce, flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))

    def _call(self, verb: Callable[..., object], *arguments: Any) -> None:
        try:
            verb(*arguments)
        except RuntimeError as error:
            raise Unavailable(
                f"the other ranks are lost, or did not answer in time ({_first_line(error)}); the"
                " cause stands in the message of the rank that ended first",
                reason="RANK_LOST",
            ) from error


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, ranks: _Joined) -> Tensor:
        ctx.own = slice(ranks.rank * len(share), (ranks.rank + 1) * len(share))
        return ranks.all_gather(share)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.own], None


_ALONE = Ranks()
_current: Ranks = _ALONE


def current() -> Ranks:
    """The ranks that this process belongs to."""
    return _current


def local_rank() -> int:
    """This process's number on its machine, as ``torchrun`` says; 0 without it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_size() -> int:
    """Processes of the run on this machine, as ``torchrun`` says; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


@contextmanager
def joined(*, minutes: int, device: torch.device) -> Iterator[Ranks]:
    """Joins the other processes that ``torchrun`` started; alone where there are none.

    Args:
        minutes: Longest wait for another rank, the first one's clustering included.
        device: Of this process; tensors on GPUs go by NCCL, those on CPUs by Gloo.

    Raises:
        Unavailable: The others did not come.
        ResightError: Whatever the work raised, its message naming the rank.
    """
    global _current
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _current is not _ALONE:
        yield _current
        return
    if not dist.is_initialized():
        _meet(minutes, device)
    _current = _Joined()
    silence(silent=not _current.first)
    try:
        yield _current
        _current.wait()
    except ResightError as error:
        error.message = f"rank {_current.rank}: {error.message}"
        raise
    finally:
        _current = _ALONE
        silence(silent=False)


def _meet(minutes: int, device: torch.device) -> None:
    """Once a process: a group of the same name made anew finds the old one's addresses."""
    cuda = device.type == "cuda"
    if cuda and not dist.is_nccl_available():
        raise FailedPrecondition("this torch has no NCCL: use device=cpu", field="device")
    if cuda:
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(minutes=minutes)
        )
    except (RuntimeError, ValueError) as error:
        raise Unavailable(
            f"cannot join the other ranks ({_first_line(error)}); start them all with torchrun"
        ) from error
    atexit.register(dist.destroy_process_group)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _loaded(data: bytearray) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)
