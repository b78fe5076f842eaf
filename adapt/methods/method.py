"""What the training engine asks of an adaptation method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["EpochLabels", "Method", "MethodState", "StateValue"]

StateValue = Tensor | float | int | str | None
MethodState = Mapping[str, StateValue]


@dataclass(frozen=True)
class EpochLabels:
    """Pseudo-labels of one epoch.

    Attributes:
        classes: (N,) int64 class of each crop, 0..count-1; -1 = not trained on this epoch.
        count: Number of classes.
        clusters: Classes that hold more than one crop.
        outliers: Crops in no such class.
        largest: Size of the largest class.
        seconds: Wall seconds by step of the clustering.
        notes: Degradations to report, in words.
        extra: Further figures for the summary.
    """

    classes: NDArray[np.int64]
    count: int
    clusters: int
    outliers: int
    largest: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: Mapping[str, float] = field(default_factory=dict)


class Method(Protocol):
    """One adaptation method, a strategy over the engine.

    An epoch is ``wants_features`` → (extraction) → ``prepare_epoch`` → for every batch ``loss``,
    the optimiser's step, ``update``.
    """

    name: str
    learns: bool

    def wants_features(self, epoch: int) -> bool:
        """Whether ``prepare_epoch`` needs features extracted with the present encoder."""
        ...

    def prepare_epoch(self, features: NDArray[np.float32] | None, epoch: int) -> EpochLabels:
        """Labels the crops for ``epoch``.

        Args:
            features: (N, D) unit vectors, or None when ``wants_features`` said no.

        Raises:
            FailedPrecondition: There is nothing to contrast (the message says why and what to do).
        """
        ...

    def loss(self, features: Tensor, rows: Tensor, classes: Tensor) -> Tensor:
        """Scalar loss of unit ``features`` (B, D) of crops ``rows`` (B,) in ``classes`` (B,)."""
        ...

    def update(self, features: Tensor, rows: Tensor, classes: Tensor) -> None:
        """Updates the memory after the step; ``features`` (B, D) carry no gradient."""
        ...

    def state_dict(self) -> dict[str, StateValue]:
        """What must survive a restart: tensors and plain values only."""
        ...

    def load_state_dict(self, state: MethodState) -> None:
        """Takes back what ``state_dict`` gave."""
        ...
