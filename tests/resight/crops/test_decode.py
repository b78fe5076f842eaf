"""Decoding against Pillow's own pixels, arithmetic done here, and damaged files."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resight.crops import ImageLimits, Preprocessing, check_header, decode, prepare, resize
from resight.crops.faults import Fault, fault_of
from resight.errors import ImageTooLarge, InvalidArgument, ResightError, UndecodableImage

RNG = np.random.default_rng(0)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(height: int = 64, width: int = 32) -> Image.Image:
    """Smooth, so that lossy formats keep it."""
    rows = np.linspace(0, 255, height)[:, None]
    columns = np.linspace(0, 255, width)[None, :]
    bands = [rows + 0 * columns, columns + 0 * rows, (rows + columns) / 2]
    return Image.fromarray(np.stack(bands, axis=2).astype(np.uint8))


def png_of_size(width: int, height: int) -> bytes:
    """A PNG header that claims a size, with next to no pixel data behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 64)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_back_the_pixels(kind: str) -> None:
    pixels = noise(20, 10)
    if kind == "GIF":  # at most 256 colours
        pixels = np.kron(pixels[:2, :1], np.ones((10, 10, 1), np.uint8))
    found = decode(encode(Image.fromarray(pixels), kind))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_come_near(kind: str) -> None:
    image = scene()
    found = decode(encode(image, kind, quality=95)).astype(int)
    assert np.abs(found - np.asarray(image).astype(int)).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(orientation: int) -> None:
    # The stored rows and columns of each orientation, from the EXIF specification (tag 274).
    upright = noise(12, 9)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF"):
        data = encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
        np.testing.assert_array_equal(decode(data), upright, err_msg=kind)


def test_orientation_of_a_jpeg_is_applied_before_resizing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(scene(60, 30), "JPEG", exif=exif, quality=95)
    assert decode(data).shape == (30, 60, 3)
    turned = prepare(encode(scene(60, 30), "JPEG", quality=95), Preprocessing(16, 16))
    np.testing.assert_allclose(
        prepare(data, Preprocessing(16, 16)).astype(int), np.rot90(turned, -1).astype(int), atol=2
    )


def test_broken_exif_does_not_cost_the_crop() -> None:
    data = encode(scene(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff" + b"\xff" * 40)
    assert decode(data).shape == (64, 32, 3)


def test_grey_palette_cmyk_and_sixteen_bit_become_rgb() -> None:
    grey = noise(16, 16)[:, :, 0]
    tripled = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(grey))), tripled)
    palette = Image.fromarray(np.kron(noise(4, 4), np.ones((4, 4, 1), np.uint8))).convert(
        "P", palette=Image.Palette.ADAPTIVE
    )
    np.testing.assert_array_equal(decode(encode(palette)), np.asarray(palette.convert("RGB")))
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = decode(encode(cmyk, "JPEG", quality=95)).mean(axis=(0, 1))
    assert red[0] > 200 > 60 > max(red[1:])
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(decode(encode(deep)), tripled)


def test_transparent_pixels_are_black_whatever_colour_they_hide() -> None:
    pixels = np.full((16, 16, 4), 200, np.uint8)
    pixels[:8, :, 3] = 0
    pixels[8:, :, 3] = 255
    found = decode(encode(Image.fromarray(pixels, "RGBA")))
    assert (found[:8] == 0).all()
    assert (found[8:] == 200).all()


def test_an_animation_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_a_cut_file_is_refused_not_padded(kind: str, share: float) -> None:
    data = encode(Image.fromarray(noise(64, 64)), kind)
    with pytest.raises(UndecodableImage):
        decode(data[: int(len(data) * share)])


def test_a_cut_jpeg_is_called_truncated() -> None:
    data = encode(scene(), "JPEG")
    with pytest.raises(UndecodableImage) as caught:
        decode(data[:-100])
    assert fault_of(caught.value) is Fault.TRUNCATED


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", Fault.ZERO_BYTE),
        (b"not an image at all, but long enough", Fault.NOT_AN_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n" + b"x" * 100, Fault.NOT_AN_IMAGE),
        (b"\xff\xd8\xff", Fault.CORRUPT),
        (b"\x89PNG\r\n\x1a\n", Fault.CORRUPT),
    ],
)
def test_faults_are_told_apart(data: bytes, fault: Fault) -> None:
    with pytest.raises(UndecodableImage) as caught:
        decode(data)
    assert fault_of(caught.value) is fault or fault is Fault.CORRUPT


@pytest.mark.parametrize("size", [(10_000, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_huge_image_is_refused_from_its_header(size: tuple[int, int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own bomb warning must have no say
        with pytest.raises(ImageTooLarge, match="max_pixels"):
            decode(png_of_size(*size))
        with pytest.raises(ImageTooLarge, match="max_pixels"):
            check_header(BytesIO(png_of_size(*size)))


def test_limits_decide() -> None:
    data = encode(Image.fromarray(noise(10, 20)))
    assert decode(data, limits=ImageLimits(max_pixels=200)).shape == (10, 20, 3)
    with pytest.raises(ImageTooLarge):
        decode(data, limits=ImageLimits(max_pixels=199))
    with pytest.raises(ImageTooLarge, match="max_image_bytes"):
        decode(data, limits=ImageLimits(max_bytes=len(data) - 1))
    with pytest.raises(UndecodableImage, match="min_side") as caught:
        decode(data, limits=ImageLimits(min_side=11))
    assert fault_of(caught.value) is Fault.TOO_SMALL


@pytest.mark.parametrize(
    "wrong", [{"max_bytes": 0}, {"max_pixels": 0}, {"max_pixels": 10**9}, {"min_side": 0}]
)
def test_impossible_limits_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument):
        ImageLimits(**wrong)


@pytest.mark.parametrize(
    "wrong", [(0, 64, "bilinear"), (64, 5000, "bilinear"), (64, 64, "lanczos")]
)
def test_impossible_preprocessing_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument):
        Preprocessing(*wrong)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_files_decode_or_raise_our_errors(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(DAMAGEABLE)))
    damaged = bytearray(DAMAGEABLE[kind])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(damaged), limits=ImageLimits(max_pixels=10_000))
    except ResightError:
        return
    assert found.dtype == np.uint8
    assert found.shape[2] == 3
    assert found.shape[0] * found.shape[1] <= 10_000


DAMAGEABLE = {
    kind: encode(scene(24, 16), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
}


@pytest.mark.parametrize("resize_filter", ["bilinear", "bicubic"])
def test_prepare_equals_decode_then_resize(resize_filter: Any) -> None:
    data = encode(scene(50, 40), "JPEG")
    preprocessing = Preprocessing(32, 16, resize_filter)
    stepwise = resize(decode(data), height=32, width=16, resize_filter=resize_filter)
    np.testing.assert_array_equal(prepare(data, preprocessing), stepwise)
    assert stepwise.shape == (32, 16, 3)


def test_halving_is_antialiased() -> None:
    # A triangle filter over a one-pixel checkerboard gives grey; point sampling gives stripes.
    board = np.indices((32, 32)).sum(axis=0) % 2 * 255
    image = np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8)
    small = resize(image, height=16, width=16, resize_filter="bilinear")
    assert np.abs(small[2:-2, 2:-2].astype(int) - 128).max() <= 2


def test_a_crop_of_the_right_size_is_left_alone() -> None:
    pixels = noise(32, 16)
    np.testing.assert_array_equal(
        prepare(encode(Image.fromarray(pixels)), Preprocessing(32, 16, "bicubic")), pixels
    )
