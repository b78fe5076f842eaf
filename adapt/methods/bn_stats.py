"""The control: batch-norm statistics re-estimated on the crops, and nothing learnt.

For each batch-norm layer, mean and variance become the averages of the batch statistics over the
crops (Li et al., Pattern Recognition 80, 2018: AdaBN). Part of what an adaptation gains comes from
this alone, so a method's figures stand beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adapt.methods.method import EpochLabels, MethodState, StateValue

__all__ = ["BatchNormStatistics"]


class BatchNormStatistics:
    """The method ``bn-stats``: no epochs; the engine's final re-estimation is all there is."""

    name = "bn-stats"
    learns = False

    def wants_features(self, epoch: int) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def prepare_epoch(
        self,
        features: NDArray[np.float32] | None,  # noqa: ARG002
        epoch: int,  # noqa: ARG002
    ) -> EpochLabels:
        """Not called: there are no epochs."""
        raise ValueError("bn-stats has no epochs")

    def loss(self, features: Tensor, rows: Tensor, classes: Tensor) -> Tensor:  # noqa: ARG002
        """Not called: nothing is learnt."""
        raise ValueError("bn-stats has no loss")

    def update(self, features: Tensor, rows: Tensor, classes: Tensor) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, StateValue]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: MethodState) -> None:
        """Nothing."""
