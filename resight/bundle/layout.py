"""Names, limits and digests of a bundle's files."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath, PureWindowsPath

from resight.crops.preprocessing import Preprocessing
from resight.errors import InvalidArgument

__all__ = [
    "ENCODER",
    "FORMAT_VERSION",
    "MANIFEST",
    "MANIFEST_DIGEST",
    "MAX_BUNDLE_BYTES",
    "MAX_ENCODER_BYTES",
    "MAX_FILES",
    "MAX_MANIFEST_BYTES",
    "MODEL_CARD",
    "check_inner_path",
    "manifest_digest",
    "model_version",
]

FORMAT_VERSION = 1
ENCODER = "encoder.onnx"
MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
MODEL_CARD = "model_card.md"

MAX_FILES = 256
MAX_MANIFEST_BYTES = 16 * 1024**2
MAX_ENCODER_BYTES = 2 * 1024**3 - 1  # a protobuf message can be no longer
MAX_BUNDLE_BYTES = 16 * 1024**3


def model_version(encoder: bytes, preprocessing: Preprocessing) -> str:
    """First 16 hex digits of SHA-256 over the fp32 graph and its preprocessing, nothing else.

    The preprocessing is JSON with sorted keys and no spaces, appended to the graph's bytes.
    """
    canonical = json.dumps(
        {
            "height": preprocessing.height,
            "resize_filter": preprocessing.resize_filter,
            "width": preprocessing.width,
        },
        sort_keys=True,
        separators=(",", ":"),
    )
    digest = hashlib.sha256(encoder)
    digest.update(canonical.encode())
    return digest.hexdigest()[:16]


def manifest_digest(manifest: bytes) -> bytes:
    """Content of ``manifest.sha256``, in the form ``sha256sum --check`` reads."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


def check_inner_path(path: str) -> PurePosixPath:
    """A relative path that stays inside the bundle.

    Raises:
        InvalidArgument: It is empty, absolute, leaves the bundle or is not in plain form.
    """
    inner = PurePosixPath(path)
    if (
        not path
        or str(inner) != path
        or inner.is_absolute()
        or path == "."
        or ".." in inner.parts
        or "\\" in path
        or PureWindowsPath(path).anchor
        or not path.isprintable()
    ):
        raise InvalidArgument(
            f"bundle: file name {path!r} is not a plain relative path inside the bundle",
            field="files",
        )
    return inner
