"""The control: batch-norm statistics re-estimated on the crops, and nothing learnt.

For each batch-norm layer, mean and variance become the averages of the batch statistics over the
crops (Li et al., Pattern Recognition 80, 2018: AdaBN). Part of what an adaptation gains comes from
this alone, so a method's figures stand beside it.
"""

from __future__ import annotations

from torch import Tensor

from adapt.methods.method import Batch, EpochLabels, Features, Method, MethodState, StateValue

__all__ = ["BatchNormStatistics"]

_NO_EPOCHS = "bn-stats has no epochs"


class BatchNormStatistics(Method):
    """The method ``bn-stats``: no epochs; the engine's final re-estimation is all there is."""

    name = "bn-stats"
    learns = False

    def wants_features(self, epoch: int) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:  # noqa: ARG002
        """Not called: there are no epochs."""
        raise ValueError(_NO_EPOCHS)

    def loss(self, batch: Batch) -> Tensor:  # noqa: ARG002
        """Not called: nothing is learnt."""
        raise ValueError(_NO_EPOCHS)

    def logits(self, batch: Batch) -> Tensor:  # noqa: ARG002
        """Not called: there are no classes."""
        raise ValueError(_NO_EPOCHS)

    def update(self, batch: Batch) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, StateValue]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: MethodState) -> None:
        """Nothing."""
