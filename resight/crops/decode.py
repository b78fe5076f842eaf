"""From encoded bytes to the pixels an encoder sees: the one path for both halves.

Training, evaluation and serving call ``prepare``, so that they cannot differ. Only formats that
cameras and tools write are tried (BMP, GIF, JPEG, PNG, TIFF, WebP), by their signatures and with
Pillow's readers for them: the many other formats Pillow knows are attack surface and nothing else
here. Limits are checked on the header, before any pixel is decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from resight.crops.faults import CropTooLarge, CropUndecodable, Fault
from resight.crops.limits import DEFAULT_LIMITS, ImageLimits
from resight.crops.preprocessing import Preprocessing, ResizeFilter

__all__ = ["check_header", "decode", "prepare", "resize"]

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# What Pillow's readers raise on broken input.
_BROKEN = (
    SyntaxError,
    OSError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


def decode(data: bytes, *, limits: ImageLimits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """Decodes an image: EXIF orientation applied, first frame, alpha over black.

    Args:
        data: The encoded image.
        limits: Bounds on bytes, pixels and sides.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        UndecodableImage: Not a complete image of a supported format, or too small.
        ImageTooLarge: More bytes or pixels than the limits allow.
    """
    return np.asarray(_decode(data, limits))


def resize(
    image: NDArray[np.uint8], *, height: int, width: int, resize_filter: ResizeFilter
) -> NDArray[np.uint8]:
    """Resizes (H, W, 3) uint8 to (height, width, 3) uint8 with Pillow's antialiased filter."""
    return np.asarray(_resize(Image.fromarray(image), Preprocessing(height, width, resize_filter)))


def prepare(
    data: bytes, preprocessing: Preprocessing, *, limits: ImageLimits = DEFAULT_LIMITS
) -> NDArray[np.uint8]:
    """Decodes and resizes: equal to ``resize(decode(data), …)`` without the copies between.

    Returns:
        (height, width, 3) uint8, RGB.

    Raises:
        UndecodableImage: Not a complete image of a supported format, or too small.
        ImageTooLarge: More bytes or pixels than the limits allow.
    """
    return np.asarray(_resize(_decode(data, limits), preprocessing))


def check_header(stream: IO[bytes], *, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Reads an image's header only: format, size and limits, no pixel.

    Args:
        stream: A seekable binary stream at its start.
        limits: Bounds on pixels and sides (bytes are the caller's to check).

    Returns:
        Height and width as stored, before EXIF orientation.

    Raises:
        UndecodableImage: No supported format, a broken header, or too small.
        ImageTooLarge: More pixels than the limits allow.
    """
    with _faults():
        image = _open(stream)
    _check_size(image, limits)
    return image.height, image.width


def _decode(data: bytes, limits: ImageLimits) -> Image.Image:
    if not data:
        raise CropUndecodable(Fault.ZERO_BYTE, "image is empty; send the bytes of an image file")
    if len(data) > limits.max_bytes:
        raise CropTooLarge(
            f"image has {len(data)} bytes; the limit is {limits.max_bytes} (max_image_bytes)"
        )
    with _faults():
        image = _open(BytesIO(data))
    _check_size(image, limits)
    with _faults():
        image.load()
        return _upright(image, _rgb(image))


def _open(stream: IO[bytes]) -> ImageFile.ImageFile:
    signature = stream.read(16)
    stream.seek(0)
    reader = _reader(signature)
    if reader is None:
        raise CropUndecodable(
            Fault.NOT_AN_IMAGE,
            "image is of no supported format; send BMP, GIF, JPEG, PNG, TIFF or WebP",
        )
    return reader(stream)


def _reader(signature: bytes) -> type[ImageFile.ImageFile] | None:
    if signature.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if signature.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if signature.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile
    if signature.startswith(b"RIFF") and signature[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if signature.startswith((b"II*\x00", b"MM\x00*")):
        return TiffImagePlugin.TiffImageFile
    if signature.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile
    return None


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if height * width > limits.max_pixels:
        raise CropTooLarge(
            f"image is {width}x{height} = {height * width} pixels;"
            f" the limit is {limits.max_pixels} (max_pixels)"
        )
    if min(height, width) < limits.min_side:
        raise CropUndecodable(
            Fault.TOO_SMALL,
            f"image is {width}x{height}; each side needs at least {limits.min_side} pixels"
            " (min_side)",
        )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        # Pillow would clip 16-bit grey at 255 instead of scaling it.
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in {"I", "F"}:
        raise CropUndecodable(
            Fault.CORRUPT, f"image has pixel type {image.mode}; send 8 or 16 bits a channel"
        )
    if image.has_transparency_data:
        # Colours under transparent pixels are arbitrary: black makes the result defined.
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upright(source: Image.Image, pixels: Image.Image) -> Image.Image:
    if isinstance(source, TiffImagePlugin.TiffImageFile):
        return pixels  # Pillow's TIFF reader has applied the orientation while loading
    try:
        orientation = source.getexif().get(_ORIENTATION_TAG, 1)
    except _BROKEN:
        orientation = 1  # a broken metadata block says nothing about the pixels
    transpose = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return pixels if transpose is None else pixels.transpose(transpose)


def _resize(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    size = (preprocessing.width, preprocessing.height)
    if image.size == size:
        return image
    return image.resize(size, _RESAMPLING[preprocessing.resize_filter])


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (CropUndecodable, CropTooLarge):
        raise
    except _BOMB as error:
        raise CropTooLarge(f"image is too large to decode: {error}") from error
    except _BROKEN as error:
        text = str(error)
        if "truncated" in text.lower() or "end of" in text.lower():
            raise CropUndecodable(
                Fault.TRUNCATED, f"image is cut short: {text}; send the whole file"
            ) from error
        raise CropUndecodable(Fault.CORRUPT, f"image cannot be decoded: {text}") from error
