"""Changes to files, folders and archives."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Mapping

__all__ = ["archive", "flipped", "hostile_members"]


def flipped(data: bytes, draw: random.Random) -> bytes:
    """Some bytes changed, cut, doubled or put in."""
    changed = bytearray(data)
    for _ in range(draw.choice([1, 1, 3, 12])):
        if not changed:
            break
        at = draw.randrange(len(changed))
        how = draw.randrange(6)
        if how == 0:
            changed[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            changed[at : at + 4] = draw.choice([b"\0\0\0\0", b"\xff" * 4, b"9999", b"-1,", b"null"])
        elif how == 2:
            del changed[at:]
        elif how == 3:
            del changed[at : at + draw.randrange(1, 30)]
        elif how == 4:
            piece = draw.choice(
                [b"[" * 30_000, b"{", b'"', b"\0", b"1e999", b"../", draw.randbytes(9)]
            )
            changed[at:at] = piece
        else:
            changed[at:at] = changed[at : at + draw.randrange(1, 300)]
    return bytes(changed)


def archive(files: Mapping[str, bytes], *more: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An uncompressed tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info, data in more:
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def hostile_members() -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Members that would leave the folder, or fill the disk."""

    def member(name: str, data: bytes = b"x", **more: object) -> tuple[tarfile.TarInfo, bytes]:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        for key, value in more.items():
            setattr(info, key, value)
        return info, data

    link = {"type": tarfile.SYMTYPE, "size": 0}
    return {
        "parent": member("../escaped"),
        "deep parent": member("a/../../escaped"),
        "absolute": member("/tmp/resight-escaped"),
        "windows": member("a\\..\\..\\escaped"),
        "empty name": member(""),
        "dot": member("."),
        "nul": member("a\0b"),
        "symlink out": member("link", b"", linkname="/etc", **link),
        "symlink in": member("link", b"", linkname="manifest.json", **link),
        "hard link": member("link", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd", size=0),
        "device": member("device", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3, size=0),
        "fifo": member("pipe", b"", type=tarfile.FIFOTYPE, size=0),
        "sparse": member("sparse", b"", type=tarfile.GNUTYPE_SPARSE, size=0),
        "unlisted": member("more.bin", b"more"),
        "long name": member("a" * 5000),
        "deep folder": member("/".join(["a"] * 400)),
        "set uid": member("tool", b"x", mode=0o6777),
    }
