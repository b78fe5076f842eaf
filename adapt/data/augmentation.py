"""Training-time augmentation of whole uint8 batches, on any device.

Flip, pad and random crop, normalise, random erasing (Zhong et al., AAAI 2020), as METHODS of the
family do. The released code erases *after* normalisation with the constants (.485, .456, .406),
which is not the mean colour there (that would be 0): ``erasing_fill="released"`` keeps the quirk,
``"mean"`` fills with 0.

Intended deviations: one decision tensor per batch instead of one transform per image; up to 10
candidate rectangles instead of 100 (the chance that none fits is below 1e-5 at person sizes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Augmentation", "Normalisation"]

_ATTEMPTS = 10
_RELEASED_FILL = (0.485, 0.456, 0.406)


class Normalisation:
    """(x / 255 - mean) / std of uint8 NHWC images, as float32 NCHW in channels-last memory."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], *, device: torch.device | str = "cpu"
    ) -> None:
        deviation = torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        centre = torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self._scale = 1.0 / (255.0 * deviation)
        self._shift = -centre / deviation

    def __call__(self, images: Tensor) -> Tensor:
        """``images``: (B, H, W, 3) uint8; returns (B, 3, H, W) float32."""
        return (images.permute(0, 3, 1, 2) * self._scale).add_(self._shift)


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training batch.

    Attributes:
        flip: Probability of a horizontal flip.
        pad: Pixels of black border from which a crop of the original size is taken; 0 = none.
        erasing: Probability that a rectangle is erased.
        erasing_fill: ``released`` or ``mean``, see above.
    """

    flip: float = 0.5
    pad: int = 10
    erasing: float = 0.5
    erasing_fill: Literal["released", "mean"] = "released"
    area: tuple[float, float] = (0.02, 0.4)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __call__(
        self,
        images: Tensor,
        normalise: Normalisation,
        random: torch.Generator,
        *,
        share: slice = slice(None),
        total: int | None = None,
    ) -> Tensor:
        """Augments and normalises.

        Args:
            images: (B, H, W, 3) uint8 on any device.
            random: CPU generator that alone decides, so that runs on two devices agree.
            share: Which of a batch of ``total`` the ``images`` are: decisions are drawn for the
                whole batch, so that its parts are what they are in the whole.
            total: Images of the whole batch; B when not given.

        Returns:
            (B, 3, H, W) float32 on the device of ``images``.
        """
        total = len(images) if total is None else total
        images = self._shift(images, random, share, total)
        images = self._flip(images, random, share, total)
        return self._erase(normalise(images), random, share, total)

    def _flip(self, images: Tensor, random: torch.Generator, share: slice, total: int) -> Tensor:
        mirrored = torch.rand(total, generator=random)[share] < self.flip
        chosen = mirrored.nonzero().squeeze(1).to(images.device)
        if self.flip and len(chosen):
            images = images.index_copy(0, chosen, images.index_select(0, chosen).flip(2))
        return images

    def _shift(self, images: Tensor, random: torch.Generator, share: slice, total: int) -> Tensor:
        """Pad and crop: each row of the result is one contiguous run of the padded batch."""
        if not self.pad:
            return images
        count, height, width, _ = images.shape
        margin = self.pad
        padded = images.new_zeros((count, height + 2 * margin, width + 2 * margin, 3))
        padded[:, margin : margin + height, margin : margin + width] = images
        offsets = torch.randint(2 * margin + 1, (2, total, 1), generator=random)[:, share]
        rows, columns = padded.shape[1], padded.shape[2]
        starts = (torch.arange(count)[:, None] * rows + offsets[0] + torch.arange(height)) * columns
        starts = (starts + offsets[1]).reshape(-1).to(images.device)
        runs = padded.as_strided((count * rows * columns - width + 1, width * 3), (3, 1))
        return runs[starts].view(count, height, width, 3)

    def _erase(self, images: Tensor, random: torch.Generator, share: slice, total: int) -> Tensor:
        if not self.erasing:
            return images
        height, width = images.shape[2:]
        values = _RELEASED_FILL if self.erasing_fill == "released" else (0.0, 0.0, 0.0)
        fill = torch.tensor(values, dtype=images.dtype, device=images.device).view(3, 1, 1)
        boxes = self._rectangles(total, height, width, random)[share].tolist()
        # Box by box, for a mask would touch every pixel of the batch to change a tenth of them.
        for image, (top, left, bottom, right) in zip(images, boxes, strict=True):
            if bottom > top:
                image[:, top:bottom, left:right] = fill
        return images

    def _rectangles(self, count: int, height: int, width: int, random: torch.Generator) -> Tensor:
        """(count, 4) int64 top, left, bottom, right; empty where nothing is erased."""
        draws = torch.rand((4, count, _ATTEMPTS), generator=random)
        area = (self.area[0] + (self.area[1] - self.area[0]) * draws[0]) * (height * width)
        aspect = self.aspect[0] + (self.aspect[1] - self.aspect[0]) * draws[1]
        tall, wide = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        fits = (tall < height) & (wide < width)
        first = fits.int().argmax(dim=1, keepdim=True)
        tall, wide = tall.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
        top = (draws[2].gather(1, first)[:, 0] * (height - tall + 1)).floor()
        left = (draws[3].gather(1, first)[:, 0] * (width - wide + 1)).floor()
        erased = (torch.rand(count, generator=random) < self.erasing) & fits.any(dim=1)
        box = torch.stack((top, left, top + tall, left + wide), dim=1) * erased[:, None]
        return box.long()
