"""What runs on the encoder's own thread: one batch, with a poisonous image isolated by bisection.

A batch that fails is halved until the image at fault stands alone, so n images cost at most 2n - 1
forward passes and only that image's caller gets an error. When no image of a batch succeeds, a
blank image decides whether the images or the encoder are at fault; an encoder that fails on the
blank image is dead and `DeviceFailureError` ends the stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from resight.errors import ResightError
from service.telemetry import BATCH_FAILURES

__all__ = ["DeviceFailureError", "Encode", "ImageArray", "Outcome", "Vector", "encode_isolating"]

logger = logging.getLogger(__name__)

ImageArray = NDArray[np.uint8]
Vector = NDArray[np.float32]
Encode = Callable[[ImageArray], Vector]
"""(B,H,W,3) uint8 to (B,D) float32."""
Outcome = Vector | ResightError


class DeviceFailureError(Exception):
    """The encoder fails on every input: the process cannot serve any longer."""


def encode_isolating(
    encode: Encode, images: Sequence[ImageArray], *, sizes: Sequence[int] = ()
) -> list[Outcome]:
    """Encode images, each (H,W,3) uint8, one outcome an image in their order.

    Args:
        encode: The encoder.
        images: At least one image, all of one shape.
        sizes: Ascending batch sizes to pad to with blank images; none: batches go as they are.

    Raises:
        DeviceFailureError: The encoder fails even on a blank image.
    """
    outcomes = _bisect(encode, images, sizes)
    if all(isinstance(outcome, ResightError) for outcome in outcomes):
        _probe(encode, images[0], sizes)
    return outcomes


def _bisect(encode: Encode, images: Sequence[ImageArray], sizes: Sequence[int]) -> list[Outcome]:
    try:
        vectors = encode(_stack(images, sizes))[: len(images)]
    except Exception as error:
        BATCH_FAILURES.inc()
        if len(images) == 1:
            logger.warning("the encoder failed on an image: %s: %s", type(error).__name__, error)
            return [_failure()]
        half = len(images) // 2
        return _bisect(encode, images[:half], sizes) + _bisect(encode, images[half:], sizes)
    return [
        vector if np.isfinite(vector).all() else _failure(": the vector is not finite")
        for vector in vectors
    ]


def _stack(images: Sequence[ImageArray], sizes: Sequence[int]) -> ImageArray:
    size = next((size for size in sizes if size >= len(images)), len(images))
    batch = np.zeros((size, *images[0].shape), np.uint8)
    np.stack(images, out=batch[: len(images)])
    return batch


def _probe(encode: Encode, image: ImageArray, sizes: Sequence[int]) -> None:
    blank = _stack([np.zeros_like(image)], sizes)
    try:
        encode(blank)
    except Exception as error:
        raise DeviceFailureError(
            f"the encoder fails on a blank image: {type(error).__name__}: {error}"
        ) from error


def _failure(why: str = "") -> ResightError:
    return ResightError(
        f"the encoder failed on this image{why}; send another image",
        field="image",
        reason="ENCODER_FAILED",
    )
