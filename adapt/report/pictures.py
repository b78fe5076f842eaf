"""Pictures of the HTML report, as PNG or JPEG bytes: maps of the embedding, sheets of crops."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.manifold import TSNE

__all__ = ["crop_strip", "map_2d", "scatter_pair"]

_THUMB = (32, 64)
_GAP = 2
_JPEG_QUALITY = 80


def map_2d(features: NDArray[np.float32], *, seed: int, threads: int) -> NDArray[np.float32]:
    """t-SNE of unit ``features`` (N, D) to (N, 2); a line for fewer than four crops."""
    if len(features) < 4:
        return np.column_stack([np.arange(len(features)), np.zeros(len(features))]).astype(
            np.float32
        )
    embedding = TSNE(
        perplexity=min(30.0, (len(features) - 1) / 3),
        init="pca",
        random_state=seed,
        n_jobs=threads,
    )
    result: NDArray[np.float32] = embedding.fit_transform(features)
    return result


def scatter_pair(
    before: NDArray[np.float32],
    after: NDArray[np.float32],
    cameras: NDArray[np.int32],
    names: Sequence[str],
) -> bytes:
    """PNG of two maps (N, 2) side by side, coloured by camera."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    colours = colormaps["tab20"]
    for axes, points, title in zip(
        figure.subplots(1, 2), (before, after), ("before", "after"), strict=True
    ):
        for code, name in enumerate(names):
            of_camera = cameras == code
            axes.scatter(*points[of_camera].T, s=5, color=colours(code % 20), label=name)
        axes.set_title(title)
        axes.set_xticks([])
        axes.set_yticks([])
    if len(names) <= 20:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", markerscale=3)
    return _png(figure)


def crop_strip(pixels: NDArray[np.uint8]) -> bytes:
    """JPEG of crops (N, H, W, 3) side by side as small thumbnails."""
    width, height = _THUMB
    strip = Image.new("RGB", (max(1, len(pixels)) * (width + _GAP), height), (255, 255, 255))
    for place, crop in enumerate(pixels):
        strip.paste(Image.fromarray(crop).resize(_THUMB), (place * (width + _GAP), 0))
    stream = io.BytesIO()
    strip.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return stream.getvalue()
