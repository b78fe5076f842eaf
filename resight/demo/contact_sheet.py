"""A picture of some queries and what the service found for them, right and wrong alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from resight.demo.probing import Answer

__all__ = ["GREEN", "RED", "draw_contact_sheet", "pick_answers"]

GREEN, RED = (26, 150, 65), (202, 38, 38)
_INK, _PAPER = (40, 40, 40), (255, 255, 255)
_CROP = (64, 128)
_FRAME, _LINE, _GAP, _LABELS = 4, 13, 8, 3


def pick_answers(answers: Sequence[Answer], count: int, seed: int) -> list[Answer]:
    """Draw ``count`` answers by ``seed``: blind to how good they are, in their given order."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(answers), size=min(count, len(answers)), replace=False)
    return [answers[int(place)] for place in sorted(chosen)]


def draw_contact_sheet(answers: Sequence[Answer], output: Path, *, matches: int) -> None:
    """Write a PNG with a row an answer: the query, then its best ``matches``.

    A match has a green frame when it shows the query's person and a red one otherwise, and below
    it its camera, time (UTC) and score.
    """
    cell = (_CROP[0] + 2 * _FRAME + _GAP, _CROP[1] + 2 * _FRAME + _LABELS * _LINE + _GAP)
    header = 2 * _LINE + _GAP
    size = (cell[0] * (matches + 1) + 3 * _GAP, cell[1] * len(answers) + header)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=10)
    draw.text((_GAP, 4), "query", fill=_INK, font=font)
    caption = "ranked sightings on other cameras; green: same person, red: somebody else"
    draw.text((cell[0] + 3 * _GAP, 4), caption, fill=_INK, font=font)
    for row, answer in enumerate(answers):
        top = header + row * cell[1]
        labels = (answer.camera, _clock(answer.capture_time), "")
        _cell(sheet, draw, (_GAP, top), answer.image, labels, _INK)
        for column, match in enumerate(answer.matches[:matches], start=1):
            labels = (match.camera, _clock(match.capture_time), f"{match.score:.3f}")
            place = (column * cell[0] + 3 * _GAP, top)
            _cell(sheet, draw, place, match.image, labels, GREEN if match.correct else RED)
    sheet.save(output, "PNG", optimize=True)


def _cell(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    path: Path,
    labels: tuple[str, ...],
    frame: tuple[int, int, int],
) -> None:
    x, y = place
    right, bottom = x + _CROP[0] + 2 * _FRAME - 1, y + _CROP[1] + 2 * _FRAME - 1
    draw.rectangle((x, y, right, bottom), fill=frame)
    with Image.open(path) as crop:
        sheet.paste(crop.convert("RGB").resize(_CROP, Image.Resampling.BICUBIC),
                    (x + _FRAME, y + _FRAME))  # fmt: skip
    font = ImageFont.load_default(size=10)
    for line, label in enumerate(labels):
        draw.text((x, bottom + 2 + line * _LINE), label, fill=_INK, font=font)


def _clock(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S")
