"""What a bundle may hold beside the encoder; adding it never changes the model version."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from resight.bundle.bundle import Bundle
from resight.bundle.layout import (
    ENCODER,
    MANIFEST,
    MANIFEST_DIGEST,
    MAX_BUNDLE_BYTES,
    MAX_FILES,
    check_inner_path,
    manifest_digest,
)
from resight.bundle.placement import place
from resight.bundle.reader import open_bundle
from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["Attachments", "attach", "describe_attachments", "file_entry"]

_RESERVED = frozenset({ENCODER, MANIFEST, MANIFEST_DIGEST})


@dataclass
class Attachments:
    """Files for a bundle and what its manifest says of them.

    Attributes:
        files: Bytes by path inside the bundle.
        parity: Closeness of attached graphs to the encoder.
        rank_agreement: How far attachments rank as the encoder does.
        engines: Engines among the files.
        vector_maps: Maps from older encoders' embeddings among the files.
        calibration: From similarity to probability.
        notes: What was left out or is weak, for people; not written.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    parity: list[bundle_pb2.Parity] = field(default_factory=list)
    rank_agreement: list[bundle_pb2.RankAgreement] = field(default_factory=list)
    engines: list[bundle_pb2.Engine] = field(default_factory=list)
    vector_maps: list[bundle_pb2.VectorMap] = field(default_factory=list)
    calibration: bundle_pb2.ScoreCalibration | None = None
    notes: list[str] = field(default_factory=list)

    def add(self, other: Attachments) -> None:
        """Takes over another's files, descriptions and notes; its calibration if it has one."""
        self.files |= other.files
        self.parity += other.parity
        self.rank_agreement += other.rank_agreement
        self.engines += other.engines
        self.vector_maps += other.vector_maps
        self.calibration = other.calibration or self.calibration
        self.notes += other.notes

    def describe_in(self, manifest: bundle_pb2.BundleManifest) -> None:
        """Enters the descriptions; those of a file that is replaced go."""
        self._replace(manifest.parity, self.parity)
        self._replace(manifest.rank_agreement, self.rank_agreement)
        self._replace(manifest.engines, self.engines)
        self._replace(manifest.vector_maps, self.vector_maps)
        if self.calibration is not None:
            manifest.calibration.CopyFrom(self.calibration)

    def _replace(self, found: Any, added: Sequence[Any]) -> None:
        kept = [entry for entry in found if entry.path not in self.files]
        del found[:]
        found.extend([*kept, *added])


def attach(path: Path, attachments: Attachments) -> Bundle:
    """Adds files to a bundle, or replaces attachments of the same names.

    The model version stays; the bundle is replaced as a whole, so that a crash leaves the old one
    or the new one.

    Args:
        path: A bundle's folder or ``.tar``.
        attachments: What to add; may replace the model card, never the encoder.

    Returns:
        The bundle, its digests verified; its golden outputs are not recomputed.

    Raises:
        InvalidArgument: No bundle there, a file name is refused, or too many files or bytes.
        BundleCorrupt: The bundle is not what its digests say.
    """
    path = Path(os.path.abspath(path))
    for name in attachments.files:
        check_inner_path(name)
        if name in _RESERVED:
            raise InvalidArgument(f"attachment {name}: that name is the bundle's own", field=name)
    with _alone(path.parent):
        bundle = open_bundle(path, golden=False)
        manifest = bundle_pb2.BundleManifest()
        manifest.CopyFrom(bundle.manifest)
        attachments.describe_in(manifest)
        entries = {entry.path: entry for entry in bundle.manifest.files}
        entries |= {name: file_entry(name, data) for name, data in attachments.files.items()}
        _check_limits(entries)
        del manifest.files[:]
        manifest.files.extend(entry for _, entry in sorted(entries.items()))
        text = json_format.MessageToJson(manifest, indent=2).encode() + b"\n"
        kept = entries.keys() - attachments.files.keys()
        place(
            {
                **{name: bundle.directory / name for name in kept},
                **attachments.files,
                MANIFEST: text,
                MANIFEST_DIGEST: manifest_digest(text),
            },
            path,
        )
        return open_bundle(path, golden=False)


def describe_attachments(manifest: bundle_pb2.BundleManifest) -> list[str]:
    """One line an attachment that the manifest describes, for people."""
    lines = [
        f"ranking        {entry.path}: top-{entry.depth} overlap {entry.overlap:.4f}, correlation"
        f" {entry.correlation:.4f} over {entry.queries} x {entry.gallery} crops"
        for entry in manifest.rank_agreement
    ]
    lines += [
        f"engine         {entry.path}: {entry.backend} {entry.backend_version}, compute capability"
        f" {entry.compute_capability}, batch {entry.min_batch} to {entry.max_batch}"
        for entry in manifest.engines
    ]
    lines += [
        f"vector map     {entry.path}: from {entry.from_version}, {entry.pairs} pairs"
        for entry in manifest.vector_maps
    ]
    if manifest.HasField("calibration"):
        fitted = manifest.calibration
        kind = bundle_pb2.ScoreCalibration.Evidence.Name(fitted.evidence)
        lines.append(
            f"calibration    on {kind.removeprefix('EVIDENCE_').lower()}, error"
            f" {fitted.expected_calibration_error:.4f} on {fitted.held_out_positives} +"
            f" {fitted.held_out_negatives} pairs held out, prior {fitted.prior:.3g}"
        )
    return lines


def file_entry(name: str, data: bytes) -> bundle_pb2.BundleFile:
    """The manifest's line of a file."""
    return bundle_pb2.BundleFile(
        path=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)
    )


def _check_limits(entries: Mapping[str, bundle_pb2.BundleFile]) -> None:
    size = sum(entry.size_bytes for entry in entries.values())
    if len(entries) > MAX_FILES or size > MAX_BUNDLE_BYTES:
        raise InvalidArgument(
            f"attachments: the bundle would have more than {MAX_FILES} files or"
            f" {MAX_BUNDLE_BYTES} bytes; attach fewer engines",
            field="files",
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds off others that attach to bundles of this folder: the last one would win."""
    if not folder.is_dir():
        raise InvalidArgument(f"bundle: no folder {folder}", field="bundle")
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
