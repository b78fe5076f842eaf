"""Identities of crops, for evaluation only.

From the ``identity`` column of a manifest, or else from file names in the style of Market-1501:
``0002_c1s1_000451_03.jpg`` shows identity 2, ``-1_...`` is junk, ``0000_...`` a distractor.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from resight.crops.crop import CropRef
from resight.errors import InvalidArgument

__all__ = ["Labels", "encode_cameras", "encode_identities", "read_labels"]

_MARKET_NAME = re.compile(r"(-?\d+)_c\d+(?=[s_.])")
_JUNK = "-1"


@dataclass(frozen=True)
class Labels:
    """What a source says of who is on its crops.

    Attributes:
        source: The folder or manifest.
        column: Identity by file, of a manifest with an identity column; else None.
    """

    source: Path
    column: Mapping[Path, str] | None

    def identity(self, path: Path) -> str | None:
        """Identity of a crop, None where the source does not say."""
        if self.column is not None:
            return self.column.get(path)
        match = _MARKET_NAME.match(path.name)
        return None if match is None else _plain(match.group(1))


def read_labels(spec: str | Path) -> Labels:
    """Read the identities of a folder or manifest.

    Raises:
        InvalidArgument: a manifest that cannot be read.
    """
    path = Path(spec)
    if path.is_dir():
        return Labels(path, None)
    try:
        rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise InvalidArgument(
            f"crops: identities of {path} cannot be read ({error}); write the manifest again",
            field="crops",
        ) from error
    if rows is None:
        return Labels(path, None)
    return Labels(path, {path.parent / name: _plain(who) for name, who in rows if name and who})


def encode_identities(
    query: Sequence[str], gallery: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Identities as integers shared by both sides; junk becomes -1."""
    codes = {name: code for code, name in enumerate(sorted({*query, *gallery} - {_JUNK}))}
    codes[_JUNK] = -1
    return _coded(query, codes), _coded(gallery, codes)


def encode_cameras(
    query: Sequence[CropRef], gallery: Sequence[CropRef]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cameras as integers shared by both sides.

    Raises:
        InvalidArgument: a crop without a camera.
    """
    named: list[list[str]] = []
    for side, refs in (("query", query), ("gallery", gallery)):
        cameras = [ref.camera for ref in refs if ref.camera is not None]
        if len(cameras) < len(refs):
            nameless = next(ref for ref in refs if ref.camera is None)
            raise InvalidArgument(
                f"{side}: {len(refs) - len(cameras)} of {len(refs)} crops have no camera, the "
                f"first is {nameless.path.name}. The protocol leaves out gallery crops of the "
                "query's person from the query's own camera, so it must know them: name files in "
                "Market-1501 style, give a manifest with a camera column, or rank all crops alike "
                "with --ignore-cameras",
                field=side,
            )
        named.append(cameras)
    codes = {name: code for code, name in enumerate(sorted({*named[0], *named[1]}))}
    return _coded(named[0], codes), _coded(named[1], codes)


def _coded(names: Sequence[str], codes: Mapping[str, int]) -> NDArray[np.int64]:
    return np.fromiter((codes[name] for name in names), dtype=np.int64, count=len(names))


def _plain(identity: str) -> str:
    """``0002`` and ``2`` are one person."""
    text = identity.strip()
    return str(int(text)) if re.fullmatch(r"-?[0-9]{1,18}", text) else text


def _csv(path: Path) -> Iterable[tuple[str, str]] | None:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, strict=True)
        if "identity" not in (reader.fieldnames or ()):
            return None
        return [(row.get("path") or "", row.get("identity") or "") for row in reader]


def _parquet(path: Path) -> Iterable[tuple[str, str]] | None:
    with pq.ParquetFile(path) as file:
        if "identity" not in file.schema_arrow.names:
            return None
        rows = file.read(columns=["path", "identity"]).to_pylist()
    return [
        (row["path"] or "", "" if row["identity"] is None else str(row["identity"])) for row in rows
    ]
