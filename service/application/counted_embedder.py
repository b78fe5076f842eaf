"""An embedder that counts how often its encoder failed."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from resight.errors import ResightError
from service.domain.ports import Embedder, Priority

__all__ = ["CountedEmbedder"]

NORM_SLACK = 1e-3


class CountedEmbedder:
    """Passes everything on. An image that nobody can decode, or a full queue, is no failure of the
    encoder; an exception inside it, or a vector that is not of unit length, is.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.made = 0
        self.failed = 0

    @property
    def model_version(self) -> str:
        """Version of the encoder."""
        return self._embedder.model_version

    @property
    def dimension(self) -> int:
        """Values a vector."""
        return self._embedder.dimension

    async def embed_image(
        self, data: bytes, *, priority: Priority, deadline: float | None
    ) -> NDArray[np.float32]:
        """As the port says."""
        try:
            vector = await self._embedder.embed_image(data, priority=priority, deadline=deadline)
        except asyncio.CancelledError:
            raise
        except ResightError as error:
            self.failed += error.reason == "ENCODER_FAILED"
            raise
        except Exception:
            self.failed += 1
            raise
        if abs(float(np.linalg.norm(vector)) - 1.0) < NORM_SLACK:
            self.made += 1
        else:
            self.failed += 1
        return vector
