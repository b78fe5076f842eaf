"""The crops of an erasure's list as a page or a picture, for the eyes of who reviews it."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from resight.crops import decode
from resight.errors import InvalidArgument

__all__ = ["SheetCrop", "sheet_kind", "write_sheet"]

_THUMB = (96, 192)
_COLUMNS = 10
_GAP, _LINE = 8, 13
# A picture is held in memory.
_MOST_IN_PNG = 2000


@dataclass(frozen=True, slots=True)
class SheetCrop:
    """One candidate, its image encoded."""

    crop_id: str
    camera_id: str
    capture_time: str
    score: float | None
    image: bytes

    @property
    def labels(self) -> Sequence[str]:
        """What stands below its picture."""
        score = () if self.score is None else (f"score {self.score:.4f}",)
        return (self.camera_id, self.capture_time, *score)


def sheet_kind(output: Path) -> str:
    """``.html`` or ``.png``.

    Raises:
        InvalidArgument: another suffix.
    """
    kind = output.suffix.lower()
    if kind not in (".html", ".png"):
        raise InvalidArgument(f"--sheet {output}: name a .html or .png file", field="sheet")
    return kind


def write_sheet(output: Path, title: str, crops: Iterable[SheetCrop]) -> None:
    """Write the sheet; only this user may read it.

    Args:
        output: ``.html``, complete in itself, with ids to copy; or ``.png``.
        title: Stands above.
        crops: In the order of the list.

    Raises:
        InvalidArgument: another suffix, or too many crops for a picture.
    """
    if sheet_kind(output) == ".html":
        data = _page(title, crops).encode()
    else:
        data = _picture(title, list(crops))
    with os.fdopen(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)


def _page(title: str, crops: Iterable[SheetCrop]) -> str:
    cells = []
    for number, crop in enumerate(crops, 1):
        picture = base64.b64encode(_thumbnail(crop.image)).decode("ascii")
        labels = "<br>".join(html.escape(label) for label in crop.labels)
        cells.append(
            f'<figure><img src="data:image/jpeg;base64,{picture}" alt=""><figcaption>{number}. '
            f"{labels}<br><code>{html.escape(crop.crop_id)}</code></figcaption></figure>"
        )
    style = (
        "body{font:13px sans-serif;margin:1em}figure{display:inline-block;margin:.4em;width:18em;"
        "vertical-align:top}img{height:16em}code{font-size:10px}"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Erasure</title>'
        f"<style>{style}</style><h1>{html.escape(title)}</h1>{''.join(cells)}</html>\n"
    )


def _thumbnail(data: bytes) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(decode(data)).resize(_THUMB).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _picture(title: str, crops: Sequence[SheetCrop]) -> bytes:
    if len(crops) > _MOST_IN_PNG:
        raise InvalidArgument(
            f"--sheet: {len(crops)} crops are too many for a .png; name a .html", field="sheet"
        )
    font = ImageFont.load_default(size=10)
    cell = (max(_THUMB[0], 150) + _GAP, _THUMB[1] + 4 * _LINE + _GAP)
    rows = -(-max(1, len(crops)) // _COLUMNS)
    size = (_COLUMNS * cell[0] + _GAP, rows * cell[1] + 3 * _LINE)
    sheet = Image.new("RGB", size, (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _LINE // 2), title, fill=(40, 40, 40), font=font)
    for place, crop in enumerate(crops):
        x, y = _GAP + place % _COLUMNS * cell[0], 2 * _LINE + place // _COLUMNS * cell[1]
        sheet.paste(Image.fromarray(decode(crop.image)).resize(_THUMB), (x, y))
        lines = (f"{place + 1}. {crop.labels[0]}", *crop.labels[1:], crop.crop_id[:23])
        for line, label in enumerate(lines):
            draw.text((x, y + _THUMB[1] + line * _LINE), label, fill=(40, 40, 40), font=font)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()
