"""A copy of a crop as another moment of the same person might show it.

A copy is mirrored, shifted, blurred, made brighter or darker with more or less contrast, tinted,
and a rectangle of it is covered, each by an amount drawn in units of the crop's own size::

    x'  = clip(c (x - 128) + 128 + b + t)      contrast c, brightness b, tint t by channel

so that encoders of different input sizes are asked the same. Draws depend on (seed, crop) alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

__all__ = ["perturb"]

_SHIFT = 0.06
_CONTRAST = 0.25
_BRIGHTNESS = 30.0
_TINT = 10.0
_BLUR = 0.012
_COVER = (0.05, 0.2)


def perturb(image: NDArray[np.uint8], *, seed: int, crop: int) -> NDArray[np.uint8]:
    """A copy of ``image`` (H, W, 3) uint8 that shows the same person.

    Args:
        image: The crop at an encoder's input size.
        seed: Of the gate.
        crop: Number of the crop: the same for every encoder.
    """
    draw = np.random.default_rng((seed, crop))
    height, width, _ = image.shape
    shift = draw.uniform(-_SHIFT, _SHIFT, 2)
    blur = draw.uniform(0.0, _BLUR)
    contrast = 1.0 + draw.uniform(-_CONTRAST, _CONTRAST)
    offset = draw.uniform(-_BRIGHTNESS, _BRIGHTNESS) + draw.uniform(-_TINT, _TINT, 3)
    area, aspect = draw.uniform(*_COVER), draw.uniform(0.5, 2.0)
    place, fill = draw.uniform(0.0, 1.0, 2), draw.uniform(0.0, 255.0, 3)

    blurred = Image.fromarray(image[:, ::-1]).filter(ImageFilter.GaussianBlur(blur * height))
    rows = np.clip(np.arange(height) + round(shift[0] * height), 0, height - 1)
    columns = np.clip(np.arange(width) + round(shift[1] * width), 0, width - 1)
    copy = np.asarray(blurred)[rows][:, columns].astype(np.float32)
    copy = (copy - 128.0) * contrast + 128.0 + offset
    tall = min(height, max(1, round(np.sqrt(area * aspect) * height)))
    wide = min(width, max(1, round(np.sqrt(area / aspect) * width)))
    top = int(place[0] * (height - tall + 1))
    left = int(place[1] * (width - wide + 1))
    copy[top : top + tall, left : left + wide] = fill
    rounded: NDArray[np.uint8] = np.clip(np.rint(copy), 0, 255).astype(np.uint8)
    return rounded
