"""CSV and Parquet manifests of crops.

Columns: ``path`` (relative to the manifest, inside its folder), and optionally ``camera``,
``capture_time`` (RFC 3339 with an offset), ``track``, ``zone`` and ``attributes`` (a JSON object
of strings). Other columns are ignored; an identity column is never read here. An empty cell means
unknown. A fault of one row skips that row; a fault of the file itself is an error.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from resight.crops.crop import CropRef, SkippedCrop
from resight.crops.faults import Fault
from resight.crops.folder import entry_fault
from resight.errors import InvalidArgument

__all__ = ["list_manifest"]

_COLUMNS = ("path", "camera", "capture_time", "track", "zone", "attributes")
_RFC3339 = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_MAX_TEXT = 1024

Row = Mapping[str, object]
T = TypeVar("T")


class _RowError(Exception):
    def __init__(self, fault: Fault, column: str, message: str) -> None:
        super().__init__(f"column {column}: {message}")
        self.fault = fault


def list_manifest(path: Path) -> Iterator[CropRef | SkippedCrop]:
    """Yields the crop of every row, or why the row has none.

    Rows are counted from 1, the header not counted.

    Raises:
        InvalidArgument: The manifest cannot be read, or has no ``path`` column.
    """
    rows = _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path)
    seen: set[Path] = set()
    real_root = path.parent.resolve()
    for number, row in enumerate(rows, start=1):
        try:
            ref = _ref(row, path.parent)
            if ref.path in seen:
                raise _RowError(Fault.DUPLICATE, "path", f"{row['path']} is named twice")
        except _RowError as error:
            yield SkippedCrop(_named(row, path), error.fault, f"row {number}, {error}")
            continue
        seen.add(ref.path)
        fault = entry_fault(ref.path, real_root)
        if fault is not None:
            fault = SkippedCrop(fault.path, fault.reason, f"row {number}: {fault.detail}")
        yield fault or ref


def _csv_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                if None in row:
                    # A comma too many shifts every cell after it: no cell can be trusted.
                    yield {"path": None, "cells": row[None]}
                else:
                    yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names)
            columns = [name for name in _COLUMNS if name in names]
            for batch in file.iter_batches(columns=columns):
                yield from _microseconds(pa.Table.from_batches([batch])).to_pylist()
    except (OSError, pa.ArrowException, ValueError, OverflowError) as error:
        # The last two: of a cell that Python has no value for, such as the year 100,000.
        raise _unreadable(path, error) from error


def _microseconds(table: pa.Table) -> pa.Table:
    # datetime has no nanoseconds, and pyarrow refuses to drop them without being told.
    for index, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type):
            kind = pa.timestamp("us", tz=column.type.tz)
            cells = table.column(index).cast(kind, safe=False)
            table = table.set_column(index, column.name, cells)
    return table


def _check_columns(path: Path, names: object) -> None:
    columns = list(names) if isinstance(names, list | tuple) else []
    if "path" not in columns:
        found = ", ".join(str(name) for name in columns) or "none"
        raise InvalidArgument(
            f"crops: {path} has no column path (columns: {found}); add one with the image files"
            " relative to the manifest",
            field="crops",
        )
    doubled = sorted({name for name in _COLUMNS if columns.count(name) > 1})
    if doubled:
        raise InvalidArgument(
            f"crops: {path} has the column {doubled[0]} twice; keep one", field="crops"
        )


def _unreadable(path: Path, error: Exception) -> InvalidArgument:
    return InvalidArgument(
        f"crops: {path} cannot be read as {path.suffix.lower()[1:]}: {error}; write it again",
        field="crops",
    )


def _named(row: Row, manifest: Path) -> Path:
    named = row.get("path")
    return manifest.parent / named if isinstance(named, str) and named else manifest


def _ref(row: Row, root: Path) -> CropRef:
    if "cells" in row and row["path"] is None:
        raise _RowError(Fault.BAD_ROW, "path", "the row has more cells than the header")
    return CropRef(
        path=_path(row, root),
        camera=_cell(row, "camera", _text),
        capture_time=_cell(row, "capture_time", _time),
        track=_cell(row, "track", _text),
        zone=_cell(row, "zone", _text) or "",
        attributes=_cell(row, "attributes", _attributes) or {},
    )


def _path(row: Row, root: Path) -> Path:
    named = row["path"]
    if not isinstance(named, str) or not named:
        raise _RowError(Fault.BAD_ROW, "path", "no file is named")
    if "\0" in named or len(named) > 4 * _MAX_TEXT:
        raise _RowError(Fault.BAD_ROW, "path", "not a file name")
    if PurePosixPath(named).is_absolute() or PureWindowsPath(named).anchor:
        raise _RowError(Fault.OUTSIDE, "path", f"{named} is absolute; make it relative")
    if ".." in PurePosixPath(named).parts or ".." in PureWindowsPath(named).parts:
        raise _RowError(Fault.OUTSIDE, "path", f"{named} leaves the manifest's folder")
    return root / named


def _cell(row: Row, column: str, parse: Callable[[object], T]) -> T | None:
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise _RowError(Fault.BAD_ROW, column, str(error)) from error


def _text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{value!r} is not text")
    text = str(value)
    if len(text) > _MAX_TEXT:
        raise ValueError(f"longer than {_MAX_TEXT} characters")
    return text


def _time(value: object) -> datetime:
    advice = "write RFC 3339 with an offset, such as 2026-01-31T12:00:00Z"
    if isinstance(value, str):
        if _RFC3339.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not a time; {advice}")
        try:
            value = datetime.fromisoformat(value.upper())
        except ValueError as error:
            raise ValueError(f"{value!r} is not a time ({error}); {advice}") from error
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a time; {advice}")
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone; {advice}")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{value} is out of range in UTC") from error


def _attributes(value: object) -> dict[str, str]:
    try:
        parsed = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(parsed, dict) or not all(isinstance(v, str) for v in parsed.values()):
        raise ValueError('not a JSON object of strings, such as {"shift": "day"}')
    return parsed
