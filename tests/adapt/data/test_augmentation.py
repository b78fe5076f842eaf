"""Augmentation against per-image definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from adapt.data.augmentation import Augmentation, Normalisation

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
NORMALISE = Normalisation(MEAN, STD)
NEUTRAL = Normalisation((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))


def images(count: int = 64, height: int = 32, width: int = 16) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, height, width, 3), generator=random, dtype=torch.uint8)


def run(augment: Augmentation, batch: Tensor, *, normalise: Normalisation = NEUTRAL) -> Tensor:
    return augment(batch, normalise, torch.Generator().manual_seed(1))


def test_normalisation_is_the_definition() -> None:
    batch = images(2)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    expected = ((batch.float() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(NORMALISE(batch), expected, rtol=1e-5, atol=1e-5)


def test_nothing_asked_nothing_done() -> None:
    batch = images(4)
    out = run(Augmentation(flip=0, pad=0, erasing=0), batch)
    assert torch.equal(out.round(), batch.permute(0, 3, 1, 2).float())


def test_flip_mirrors_about_half() -> None:
    batch = images(400)
    out = run(Augmentation(flip=0.5, pad=0, erasing=0), batch).round()
    plain = batch.permute(0, 3, 1, 2).float()
    same = (out == plain).flatten(1).all(dim=1)
    mirrored = (out == plain.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 0.4 < float(mirrored.float().mean()) < 0.6


def test_shift_is_a_window_of_the_padded_image() -> None:
    batch, pad = images(64), 3
    out = run(Augmentation(flip=0, pad=pad, erasing=0), batch).round()
    seen = set()
    for before, after in zip(batch, out, strict=True):
        frame = torch.zeros(3, 32 + 2 * pad, 16 + 2 * pad)
        frame[:, pad:-pad, pad:-pad] = before.permute(2, 0, 1).float()
        windows = {
            (y, x)
            for y in range(2 * pad + 1)
            for x in range(2 * pad + 1)
            if torch.equal(frame[:, y : y + 32, x : x + 16], after)
        }
        assert len(windows) == 1
        seen |= windows
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(2 * pad + 1))


@pytest.mark.parametrize(
    ("fill", "values"), [("released", (0.485, 0.456, 0.406)), ("mean", (0.0, 0.0, 0.0))]
)
def test_erasing_fills_one_rectangle_of_the_allowed_size(
    fill: str, values: tuple[float, float, float]
) -> None:
    batch = images(400, 64, 32)
    augment = Augmentation(flip=0, pad=0, erasing=0.5, erasing_fill=fill)  # type: ignore[arg-type]
    changed = run(augment, batch) != NEUTRAL(batch)
    out = run(augment, batch)
    erased = 0
    for picture, difference in zip(out, changed.any(dim=1), strict=True):
        if not difference.any():
            continue
        erased += 1
        rows, columns = difference.any(dim=1).nonzero(), difference.any(dim=0).nonzero()
        box = difference[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.all()
        assert 0.02 * 0.8 < box.numel() / (64 * 32) < 0.4 * 1.2
        assert 0.3 * 0.7 < box.shape[0] / box.shape[1] < 1 / 0.3 * 1.4
        torch.testing.assert_close(picture[:, rows[0, 0], columns[0, 0]], torch.tensor(values))
    assert 0.4 < erased / 400 < 0.6


def test_the_generator_alone_decides() -> None:
    batch = images(16)
    first = run(Augmentation(), batch, normalise=NORMALISE)
    torch.manual_seed(99)
    assert torch.equal(first, run(Augmentation(), batch, normalise=NORMALISE))
