"""``snapshot.json``: what a snapshot holds, and the digest of every file in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from resight.errors import DataLoss, FailedPrecondition

__all__ = [
    "CATALOG",
    "FORMAT",
    "IMAGE_LIST",
    "MANIFEST",
    "FileEntry",
    "ImageCounts",
    "Manifest",
    "Told",
    "damaged",
]

# Told what is being done, and how many rows, files or images more are done.
Told = Callable[[str, int], None]

FORMAT = 1
MANIFEST = "snapshot.json"
CATALOG = "catalog.sqlite"
IMAGE_LIST = "images.list"

_FILE = re.compile(
    r"catalog\.sqlite|bundle\.tar|images\.list|images-[0-9]{6}\.pack"
    r"|bundles/[a-z0-9][a-z0-9._-]{0,62}/[0-9a-f]{64}\.tar",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file's size in bytes and its SHA-256, hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """The images: stored here; of crops deleted while the snapshot was taken; missing from the
    blob store, or not as they were ingested, and so not here.
    """

    stored: int = 0
    size: int = 0
    deleted: int = 0
    missing: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a snapshot holds.

    Args:
        schema: Revision of the catalog's schema.
        create_time: When it was taken, RFC 3339.
        database: The kind of database that the catalog was copied from.
        tables: Rows by table.
        galleries: For each its crops, the position of its log and the version it serves.
        missing_bundles: Archives that the catalog names and that could not be copied.
        files: By name in the snapshot.
        images: None when images were not asked for.
    """

    schema: str
    create_time: str
    database: str
    tables: Mapping[str, int]
    galleries: Mapping[str, Mapping[str, Any]]
    missing_bundles: list[str] = field(default_factory=list)
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    images: ImageCounts | None = None

    @classmethod
    def now(cls) -> str:
        """The present as ``create_time``."""
        return datetime.now(UTC).isoformat(timespec="seconds")

    def encode(self) -> bytes:
        """As JSON, with a digest of itself."""
        body = {"format": FORMAT, **asdict(self)}
        return json.dumps(body | {"sha256": _digest(body)}, indent=1).encode()

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> Self:
        """Read it.

        Raises:
            FailedPrecondition: it has a newer format.
            DataLoss: it is damaged.
        """
        try:
            body = json.loads(data)
            kind = body["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged(where, f"{MANIFEST} is not as it was written") from error
        if isinstance(kind, int) and kind > FORMAT:
            raise FailedPrecondition(
                f"snapshot {where} has format {kind} and this version reads up to {FORMAT}; "
                "restore it with the version of resight that made it, or a later one",
                field="snapshot",
                reason="SNAPSHOT_NEWER",
            )
        try:
            if body.pop("sha256") != _digest(body) or body.pop("format") != FORMAT:
                raise damaged(where, f"{MANIFEST} is not as it was written")
            body["files"] = {name: FileEntry(**entry) for name, entry in body["files"].items()}
            if body["images"] is not None:
                body["images"] = ImageCounts(**body["images"])
            manifest = cls(**body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(where, f"{MANIFEST} is not as it was written") from error
        if not all(_FILE.fullmatch(name) for name in manifest.files):
            raise damaged(where, f"{MANIFEST} is not as it was written")
        return manifest


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def damaged(where: Path | str, what: str) -> DataLoss:
    """A snapshot that cannot be used."""
    return DataLoss(
        f"snapshot {where} is damaged: {what}; use another snapshot",
        field="snapshot",
        reason="SNAPSHOT_DAMAGED",
    )
