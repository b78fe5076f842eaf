"""What the training engine asks of an adaptation method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = [
    "Batch",
    "EpochLabels",
    "Features",
    "Method",
    "MethodState",
    "SourceBatch",
    "StateValue",
]

StateValue = Tensor | float | int | str | None
MethodState = Mapping[str, StateValue]


@dataclass(frozen=True)
class Features:
    """What the present encoder makes of all crops.

    Attributes:
        vectors: (N, D) float32, unit rows.
        parts: (N, P, E) float32, unit rows of each part; None unless the method has parts.
    """

    vectors: NDArray[np.float32]
    parts: NDArray[np.float32] | None = None


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
        draw: (N,) int64 groups that the sampler draws from in place of ``classes`` (CAP's camera
            proxies), or None.
    """

    classes: NDArray[np.int64]
    count: int
    clusters: int
    outliers: int
    largest: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    extra: Mapping[str, float] = field(default_factory=dict)
    draw: NDArray[np.int64] | None = None

    @classmethod
    def counted(
        cls,
        classes: NDArray[np.int64],
        count: int,
        *,
        seconds: Mapping[str, float] | None = None,
        notes: Sequence[str] = (),
        extra: Mapping[str, float] | None = None,
        draw: NDArray[np.int64] | None = None,
    ) -> EpochLabels:
        """Of these ``classes``, clusters, outliers and the largest counted."""
        sizes = np.bincount(classes[classes >= 0], minlength=count)
        grouped = sizes[sizes > 1]
        return cls(
            classes=classes,
            count=count,
            clusters=len(grouped),
            outliers=len(classes) - int(grouped.sum()),
            largest=int(sizes.max(initial=0)),
            seconds=seconds or {},
            notes=tuple(notes),
            extra=extra or {},
            draw=draw,
        )


@dataclass(frozen=True)
class SourceBatch:
    """Crops of the labelled source set that a step sees beside those of the target.

    Attributes:
        features: (B, D) float32 unit vectors.
        identities: (B,) int64, from 0.
    """

    features: Tensor
    identities: Tensor


@dataclass(frozen=True)
class Batch:
    """One training step's crops and what the encoder makes of them.

    Attributes:
        features: (B, D) float32 unit vectors.
        raw: (B, D) float32, the same before normalisation.
        rows: (B,) int64 index of each crop.
        classes: (B,) int64 class of each crop.
        epoch: From 0.
        pooled: (B, P, C) float32, what ``Method.pool`` makes of the backbone's maps, where the
            method has parts; None in a teacher's.
        source: Labelled crops, where the run has a source set.
    """

    features: Tensor
    raw: Tensor
    rows: Tensor
    classes: Tensor
    epoch: int
    pooled: Tensor | None = None
    source: SourceBatch | None = None

    def detached(self) -> Batch:
        """The same without gradient."""
        source = self.source
        return replace(
            self,
            features=self.features.detach(),
            raw=self.raw.detach(),
            pooled=None if self.pooled is None else self.pooled.detach(),
            source=None if source is None else replace(source, features=source.features.detach()),
        )


class Method(ABC):
    """One adaptation method, a strategy over the engine.

    An epoch is ``wants_features`` → (extraction) → ``prepare_epoch`` → for every batch ``loss``,
    the optimiser's step, ``update``.
    """

    name: ClassVar[str]
    learns: ClassVar[bool] = True
    takes_source: ClassVar[bool] = False

    @property
    def heads(self) -> nn.Module | None:
        """What is trained beside the encoder and cut from the export.

        ``prepare_epoch`` may replace it, or modules in it: the optimiser forgets parameters that
        are gone and takes up new ones.
        """
        return None

    @property
    def has_parts(self) -> bool:
        """Whether extraction must call ``parts`` and training ``pool``."""
        return False

    def pool(self, maps: Tensor) -> Tensor:
        """What the heads take of the backbone's ``maps`` (B, C, H', W'), each image for itself.

        (B, P, C): it is sent to all ranks, which the maps are too large for.
        """
        raise NotImplementedError(f"{self.name} has no parts")

    def parts(self, maps: Tensor) -> Tensor:
        """Part features (B, P, E), not normalised, of the backbone's ``maps`` (B, C, H', W')."""
        raise NotImplementedError(f"{self.name} has no parts")

    @property
    def wants_source(self) -> bool:
        """Whether ``prepare_source`` must be called before the next ``prepare_epoch``.

        Asked only of a method that ``takes_source``, in a run that has a labelled source set.
        """
        return False

    def prepare_source(self, features: Features, identities: NDArray[np.int64]) -> None:
        """Takes the source set in.

        Args:
            features: Of its crops by the present encoder.
            identities: (M,) from 0; -1 = not to be used.
        """
        raise NotImplementedError(f"{self.name} takes no source set")

    @abstractmethod
    def wants_features(self, epoch: int) -> bool:
        """Whether ``prepare_epoch`` needs features extracted with the present encoder."""

    @abstractmethod
    def prepare_epoch(self, features: Features | None, epoch: int) -> EpochLabels:
        """Labels the crops for ``epoch``.

        Args:
            features: Of all crops, or None when ``wants_features`` said no. They are the method's
                from here on, whose memory may move them.

        Raises:
            FailedPrecondition: There is nothing to contrast (the message says why and what to do).
        """

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Scalar loss."""

    @abstractmethod
    def logits(self, batch: Batch) -> Tensor:
        """Scores (B, C) against the epoch's classes first, divided by the temperature.

        What soft targets are made from.
        """

    @abstractmethod
    def update(self, batch: Batch) -> None:
        """Updates the memory after the step; ``batch`` carries no gradient."""

    @abstractmethod
    def state_dict(self) -> dict[str, StateValue]:
        """What must survive a restart, but for the weights of ``heads``."""

    @abstractmethod
    def load_state_dict(self, state: MethodState) -> None:
        """Takes back what ``state_dict`` gave, with ``heads`` of the same shapes again."""
