"""Where crops come from: a folder, or a CSV or Parquet manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from resight.crops.crop import CropRef, SkippedCrop, SourceReport
from resight.crops.decode import check_header, decode
from resight.crops.faults import CropTooLarge, CropUndecodable, Fault, fault_of
from resight.crops.folder import MANIFEST_SUFFIXES, list_folder
from resight.crops.limits import DEFAULT_LIMITS, ImageLimits
from resight.crops.manifest import list_manifest
from resight.errors import InvalidArgument, NotFound, ResightError

__all__ = ["Check", "CropSource", "open_source", "read_crop"]

Check = Literal["header", "decode"]
_BATCH = 4096


def open_source(spec: str | Path) -> CropSource:
    """Opens a folder or a ``.csv``/``.parquet`` manifest.

    Raises:
        NotFound: There is nothing at that path.
        InvalidArgument: It is neither a folder nor a manifest.
    """
    path = Path(spec)
    if path.is_dir():
        return CropSource(path, is_manifest=False)
    if not path.exists():
        raise NotFound(
            f"crops: nothing at {path}; name a folder or a .csv/.parquet manifest", field="crops"
        )
    if path.suffix.lower() not in MANIFEST_SUFFIXES:
        raise InvalidArgument(
            f"crops: {path} is neither a folder nor a .csv/.parquet manifest", field="crops"
        )
    return CropSource(path, is_manifest=True)


def read_crop(path: Path, *, limits: ImageLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of an image file, never more than the limit.

    Raises:
        UndecodableImage: The file cannot be read or is empty.
        ImageTooLarge: It has more bytes than the limit.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(limits.max_bytes + 1)
    except OSError as error:
        raise CropUndecodable(Fault.UNREADABLE, f"image {path}: {error.strerror}") from error
    _check_length(len(data), limits)
    return data


@dataclass(frozen=True)
class CropSource:
    """A folder or manifest of crops.

    Attributes:
        path: The folder or manifest file.
        is_manifest: Whether ``path`` is a manifest.
    """

    path: Path
    is_manifest: bool

    def scan(
        self,
        check: Check = "header",
        *,
        limits: ImageLimits = DEFAULT_LIMITS,
        advance: Callable[[int], object] | None = None,
    ) -> SourceReport:
        """Lists the crops, sorted by path; one that cannot be used is reported, never fatal.

        Args:
            check: ``header`` reads format and size only; ``decode`` decodes every image, which is
                the only way to find one that is cut short or damaged inside.
            limits: Bounds on bytes, pixels and sides.
            advance: Called with the number of files checked since its last call.

        Raises:
            InvalidArgument: A manifest that cannot be read as a whole.
        """
        listed = list_manifest(self.path) if self.is_manifest else list_folder(self.path)
        candidates: list[CropRef] = []
        skipped: list[SkippedCrop] = []
        for entry in listed:
            if isinstance(entry, CropRef):
                candidates.append(entry)
            else:
                skipped.append(entry)
        crops: list[CropRef] = []
        for ref, fault in _checked(candidates, check, limits):
            if fault is None:
                crops.append(ref)
            else:
                skipped.append(fault)
            if advance is not None:
                advance(1)
        crops.sort(key=lambda crop: crop.path)
        skipped.sort(key=lambda crop: (crop.path, crop.reason, crop.detail))
        return SourceReport(self.path, tuple(crops), tuple(skipped))


def _checked(
    candidates: Iterable[CropRef], check: Check, limits: ImageLimits
) -> Iterator[tuple[CropRef, SkippedCrop | None]]:
    # Pillow and the file system release the interpreter lock; batches bound the futures held.
    waiting = iter(candidates)
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool:
        while batch := list(islice(waiting, _BATCH)):
            faults = pool.map(lambda ref: _image_fault(ref.path, check, limits), batch)
            yield from zip(batch, faults, strict=True)


def _image_fault(path: Path, check: Check, limits: ImageLimits) -> SkippedCrop | None:
    try:
        if check == "decode":
            decode(read_crop(path, limits=limits), limits=limits)
        else:
            _check_file_header(path, limits)
    except ResightError as error:
        return SkippedCrop(path, fault_of(error), error.message)
    return None


def _check_file_header(path: Path, limits: ImageLimits) -> None:
    try:
        with path.open("rb") as stream:
            _check_length(os.fstat(stream.fileno()).st_size, limits)
            check_header(stream, limits=limits)
    except OSError as error:
        raise CropUndecodable(Fault.UNREADABLE, f"image {path}: {error.strerror}") from error


def _check_length(length: int, limits: ImageLimits) -> None:
    if length == 0:
        raise CropUndecodable(Fault.ZERO_BYTE, "image is empty")
    if length > limits.max_bytes:
        raise CropTooLarge(
            f"image has more than {limits.max_bytes} bytes, the limit (max_image_bytes)"
        )
