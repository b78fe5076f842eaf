"""Decodes mutated images in a process of bounded memory: ``python -m tests.fuzz.decoding SEED N``.

Prints a JSON object: outcomes counted, the longest time, the peak of memory, and what was raised
that is no error of our tree.
"""

from __future__ import annotations

import io
import json
import random
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from resight.crops import Preprocessing, prepare
from resight.errors import ResightError

MOST_MEMORY = 3 * 2**30
PREPROCESSING = Preprocessing(64, 32, "bilinear")


def seeds() -> dict[str, bytes]:
    """One small image of every format and pixel kind that is read."""
    rng = np.random.default_rng(1)
    rgb = Image.fromarray(rng.integers(0, 255, (40, 24, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "told"
    made: dict[str, bytes] = {}

    def save(name: str, image: Image.Image, kind: str, **options: object) -> None:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        made[name] = stream.getvalue()

    save("jpeg", rgb, "JPEG", exif=exif)
    save("jpeg progressive", rgb, "JPEG", progressive=True)
    save("jpeg cmyk", rgb.convert("CMYK"), "JPEG")
    save("png", rgb, "PNG", exif=exif)
    save("png palette", rgb.convert("P"), "PNG", transparency=3)
    save("png 16 bit", Image.fromarray(rng.integers(0, 65535, (40, 24), np.uint16)), "PNG")
    save("webp", rgb, "WEBP", exif=exif)
    save("webp lossless", rgb.convert("RGBA"), "WEBP", lossless=True)
    save("gif", rgb, "GIF", save_all=True, append_images=[rgb.rotate(90)])
    save("tiff", rgb, "TIFF", exif=exif)
    save("tiff lzw", rgb, "TIFF", compression="tiff_lzw")
    save("tiff jpeg", rgb, "TIFF", compression="jpeg")
    save("bmp", rgb, "BMP")
    return made


def bombs() -> dict[str, bytes]:
    """Few bytes that say, or hold, very many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    def png(width: int, height: int, rows: int, *more: bytes) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        pixels = zlib.compress(bytes(min(width, 20_000) * 3 + 1) * rows, 9)
        parts = [head, *more, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(parts)

    text = zlib.compress(bytes(200_000_000), 9)
    tiff = struct.pack("<2sHIH", b"II", 42, 8, 5) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in ((256, 2**31), (257, 2**31), (259, 5), (273, 8), (279, 2**32 - 1))
    )
    jpeg = bytearray(seeds()["jpeg"])
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    return {
        "png of 10 gigapixels": png(100_000, 100_000, 1),
        "png of 49 megapixels": png(7_000, 7_000, 7_000),
        "png with a text of 200 MB": png(24, 40, 40, chunk(b"zTXt", b"a\x00\x00" + text)),
        "png with a profile of 200 MB": png(24, 40, 40, chunk(b"iCCP", b"a\x00\x00" + text)),
        "png with 65,000 chunks": png(24, 40, 40, *[chunk(b"tEXt", b"a\x00b")] * 65_000),
        "tiff of 4 exapixels": tiff + struct.pack("<I", 0),
        "tiff whose directory is itself": tiff + struct.pack("<I", 8),
        "jpeg of 4 gigapixels": bytes(jpeg),
        "gif of 4 gigapixels": b"GIF89a\xff\xff\xff\xff\x00\x00\x00" + b"," + bytes(20),
        "bmp of a negative height": b"BM"
        + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**31 - 1, -(2**31), 1, 24, *[0] * 6),
        "webp of a gigapixel": b"RIFF\x16\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00"
        + b"\x10"
        + b"\xff" * 9,
    }


def mutated(data: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    """The image with some of it changed."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        if not changed:
            return b""
        # Headers say how the rest is read.
        at = draw.randrange(min(len(changed), draw.choice([64, 512, len(changed)])))
        how = draw.randrange(8)
        if how == 0:
            changed[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            changed[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif how == 2:
            value = draw.choice(
                [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF, draw.getrandbits(32)]
            )
            changed[at : at + 4] = struct.pack(draw.choice(["<I", ">I"]), value)
        elif how == 3:
            del changed[at:]
        elif how == 4:
            del changed[at : at + draw.randrange(1, 40)]
        elif how == 5:
            changed[at:at] = draw.randbytes(draw.randrange(1, 40))
        elif how == 6:
            piece = changed[at : at + draw.randrange(1, 200)]
            changed[at:at] = piece * draw.choice([1, 2, 50])
        else:
            other = draw.choice(others)
            start = draw.randrange(len(other))
            changed[at:] = other[start:]
    return bytes(changed)


def tried(data: bytes, decode: Callable[[bytes], object]) -> tuple[str, str, float]:
    """Outcome, what was raised that should not be, and seconds."""
    begun = time.perf_counter()
    try:
        decode(data)
        outcome, unknown = "decoded", ""
    except ResightError as error:
        outcome, unknown = error.reason, ""
    except BaseException as error:
        outcome, unknown = "unknown", f"{type(error).__name__}: {error}"[:300]
    return outcome, unknown, time.perf_counter() - begun


def main(seed: int, number: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    draw = random.Random(seed)
    known = seeds()
    outcomes: Counter[str] = Counter()
    unknown: list[str] = []
    slowest, which = 0.0, ""
    inputs = [*bombs().items()]
    names = sorted(known)
    others = list(known.values())
    while inputs or sum(outcomes.values()) < number:
        if inputs:
            name, data = inputs.pop()
        else:
            name = names[sum(outcomes.values()) % len(names)]
            data = mutated(known[name], draw, others)
        outcome, raised, seconds = tried(data, lambda data: prepare(data, PREPROCESSING))
        outcomes[outcome] += 1
        if raised:
            unknown.append(f"{name}: {raised}; {data[:80].hex()}")
        if seconds > slowest:
            slowest, which = seconds, name
    told = {
        "outcomes": outcomes,
        "unknown": unknown[:20],
        "slowest": slowest,
        "slowest_input": which,
        "peak_mib": peak_mib(),
    }
    print(json.dumps(told))  # noqa: T201 -- for the test that started it


def peak_mib() -> int:
    """Most memory of this program. Not ``ru_maxrss``, which begins at what the process that started
    it had.
    """
    status = Path("/proc/self/status").read_text("ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
