"""Embed: an image turned into a vector, nothing stored."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from resight.errors import ImageTooLarge, InvalidArgument
from service import call
from service.application.galleries import Galleries
from service.application.serving import Serving
from service.domain.ports import Priority
from service.settings import LimitSettings

__all__ = ["Embed"]


class Embed:
    """Embeds images with a gallery's live encoder."""

    def __init__(self, *, galleries: Galleries, limits: LimitSettings) -> None:
        self._galleries = galleries
        self._limits = limits

    async def embed(
        self, gallery: str, image: bytes, *, deadline: float | None = None
    ) -> tuple[NDArray[np.float32], str]:
        """The unit vector (dimension,) of an encoded image and the version of its encoder.

        Raises:
            NotFound: no such gallery.
            UndecodableImage, ImageTooLarge, InvalidArgument: bad image.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        serving = self._galleries.get(gallery).serving
        call.current().note(model_version=serving.version)
        return await self.embedded(serving, image, deadline=deadline), serving.version

    async def embedded(
        self,
        serving: Serving,
        image: bytes,
        *,
        deadline: float | None = None,
        priority: Priority = Priority.INTERACTIVE,
    ) -> NDArray[np.float32]:
        """The unit vector (dimension,) that this very model gives an encoded image.

        Raises:
            UndecodableImage, ImageTooLarge, InvalidArgument: bad image.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        if not image:
            raise InvalidArgument("image is empty; send the encoded image", field="image")
        if len(image) > self._limits.max_image_bytes:
            raise ImageTooLarge(
                f"image has {len(image)} bytes; send at most {self._limits.max_image_bytes} "
                "(limits.max_image_bytes)",
                field="image",
            )
        return await serving.encoder.embedder.embed_image(
            image, priority=priority, deadline=deadline
        )
