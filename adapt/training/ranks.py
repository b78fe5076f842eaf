"""What several processes that train as one ask of one another; here a process by itself.

Every rank holds the same weights, memory and labels. Of a batch, rank r computes the features F_r
of its share; then all hold F = [F_1; …; F_K], compute the loss of the whole batch and update the
memory with it, in the same order:

    dL/dtheta = sum over r of (dL/dF_r) (dF_r/dtheta)

so that each rank sends back only its own slice of dL/dF and the gradients of the encoder are
*summed*. A method's heads see the whole batch on every rank: their gradients are equal already and
are *averaged*, lest rounding drives them apart. ``adapt.training.distributed`` joins real ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["Ranks"]

T = TypeVar("T")


class Ranks:
    """The processes of a run; a single one, whose verbs do nothing.

    Attributes:
        rank: This process's number, from 0.
        size: Number of processes.
    """

    rank = 0
    size = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This rank's equal share of ``count`` images.

        Raises:
            InvalidArgument: ``count`` does not divide, or leaves a rank a single image.
        """
        if count % self.size or (self.size > 1 and count // self.size < 2):
            raise InvalidArgument(
                f"a batch of p x k = {count} cannot be shared by {self.size} ranks: choose p and k"
                " so that each gets the same number of images, two at least",
                field="p",
            )
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def group_size(self, group: int, count: int) -> int:
        """Images a batch-norm group where ``group`` is asked for and ``count`` images are shared.

        Of several ranks each has whole groups: one that does not divide the share, or 0, the whole
        batch, becomes the share.
        """
        own = self.share(count)
        each: int = own.stop - own.start
        return group if self.size == 1 or (group and each % group == 0) else each

    def portion(self, count: int) -> slice:
        """This rank's contiguous part of ``count`` items, which need not divide."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def gather(self, share: Tensor) -> Tensor:
        """All ranks' equal shares (B / K, …) in rank order, (B, …); gradient to this rank's own."""
        return share

    def collect(self, rows: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        """All ranks' rows in rank order, whose numbers may differ; None where a rank has none."""
        return rows

    def every(self, value: T) -> list[T]:
        """Each rank's ``value``, tensors and plain values, in rank order."""
        return [value]

    def sum_gradients(self, own: Iterable[Tensor], common: Iterable[Tensor]) -> None:
        """Completes the gradients in place: sums those of ``own``, averages those of ``common``."""

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replaces float tensors by their means over the ranks."""

    def once(self, compute: Callable[[], T]) -> T:
        """What ``compute`` gives the first rank, on every rank: tensors and plain values.

        An error of ``compute`` is raised on the first rank; the others then lose it.
        """
        return compute()

    def require_same(self, text: str) -> None:
        """Raises FailedPrecondition when this rank's ``text`` is not the first one's."""
        if self.once(lambda: text) != text:
            raise FailedPrecondition(
                "this rank has other settings, weights or crops than the first: give all ranks the"
                " same command and the same files",
                reason="RANKS_DIFFER",
            )

    def wait(self) -> None:
        """Returns when every rank has come here."""

    @contextmanager
    def leading(self) -> Iterator[None]:
        """The first rank goes through alone, the others after it."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()
