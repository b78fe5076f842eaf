"""Opening a bundle: nothing of it is used before all of it is verified.

Detected: any change of any file (each has a SHA-256 in the manifest, and the manifest has one in
``manifest.sha256``), files missing or added, links, paths that leave the bundle, a graph or
preprocessing other than the one the version names, and a graph that computes something else here
than where it was written.

Not detected: somebody who changes a file and recomputes the digests on purpose. Digests are no
signature; compare ``model_version`` with one that came another way.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import json_format

from resight.bundle.archive import extract
from resight.bundle.bundle import Bundle, preprocessing_from_proto
from resight.bundle.golden import check_golden
from resight.bundle.graph_session import GraphSession
from resight.bundle.layout import (
    ENCODER,
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_DIGEST,
    MAX_BUNDLE_BYTES,
    MAX_ENCODER_BYTES,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    check_inner_path,
    manifest_digest,
    model_version,
)
from resight.errors import BundleCorrupt, InvalidArgument, ResightError
from resight.v1 import bundle_pb2

__all__ = ["open_bundle", "verify_golden"]

_CHUNK = 1024 * 1024


def open_bundle(path: str | Path, *, golden: bool = True) -> Bundle:
    """Opens and verifies a bundle.

    Args:
        path: Its folder, or a ``.tar`` of it.
        golden: Whether to load the graph and recompute its golden outputs too. Every digest is
            verified either way.

    Raises:
        InvalidArgument: There is no bundle at that path.
        BundleCorrupt: It is not what its digests, its manifest or its golden outputs say.
    """
    path = Path(path)
    unpacked: tempfile.TemporaryDirectory[str] | None = None
    if path.is_dir():
        directory = path.resolve()
    elif path.is_file():
        unpacked = tempfile.TemporaryDirectory(prefix="resight-bundle-")
        directory = extract(path, Path(unpacked.name))
    else:
        raise InvalidArgument(
            f"bundle: nothing at {path}; name a bundle's folder or .tar", field="bundle"
        )
    bundle = _verified(directory, path, unpacked)
    if golden:
        verify_golden(bundle)
    return bundle


def verify_golden(bundle: Bundle) -> float:
    """Recomputes the golden outputs with ONNX Runtime on the CPU.

    Returns:
        The lowest cosine similarity between expected and computed embeddings.

    Raises:
        BundleCorrupt: They differ, or the graph does not run or does not follow the contract.
    """
    try:
        session = GraphSession(bundle.encoder_path.read_bytes(), bundle.preprocessing)
        if session.dimension != bundle.dimension:
            raise _corrupt(
                MANIFEST, f"dimension is {bundle.dimension}, the graph's is {session.dimension}"
            )
        return check_golden(session, bundle.manifest.golden, bundle.preprocessing)
    except InvalidArgument as error:
        raise _corrupt(ENCODER, error.message) from error


def _verified(directory: Path, path: Path, unpacked: object) -> Bundle:
    if not (directory / MANIFEST).exists():
        raise InvalidArgument(
            f"bundle: {path} holds no {MANIFEST}, so it is no bundle; name the folder that has one"
            " (`resight adapt run` writes OUTPUT/bundle)",
            field="bundle",
        )
    sizes = dict(_files(directory))
    manifest = _read_manifest(directory, sizes)
    _verify_files(directory, manifest, sizes)
    preprocessing = preprocessing_from_proto(manifest.preprocessing)
    version = model_version((directory / ENCODER).read_bytes(), preprocessing)
    if manifest.model_version != version:
        raise _corrupt(
            MANIFEST, f"model_version is {manifest.model_version!r}, the graph's is {version}"
        )
    return Bundle(directory, manifest, preprocessing, unpacked)


def _files(directory: Path) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file; anything else than files and folders is refused."""
    found = 0
    for folder, folders, names in os.walk(directory, onerror=_unreadable):
        for name in sorted(folders + names):
            path = Path(folder, name)
            inner = path.relative_to(directory).as_posix()
            status = path.lstat()
            found += 1
            if found > 2 * MAX_FILES:
                raise _corrupt(inner, f"the bundle has more than {MAX_FILES} files")
            if stat.S_ISREG(status.st_mode):
                yield inner, status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                raise _corrupt(inner, "it is a link or a special file, not a plain file")


def _unreadable(error: OSError) -> None:
    raise _corrupt(Path(str(error.filename)).name, f"cannot be read: {error.strerror}")


def _read_manifest(directory: Path, sizes: dict[str, int]) -> bundle_pb2.BundleManifest:
    if sizes.get(MANIFEST, MAX_MANIFEST_BYTES + 1) > MAX_MANIFEST_BYTES:
        raise _corrupt(MANIFEST, f"not a plain file of at most {MAX_MANIFEST_BYTES} bytes")
    data = _read(directory, MANIFEST)
    if MANIFEST_DIGEST not in sizes:
        raise _corrupt(MANIFEST_DIGEST, "it is missing")
    digest = manifest_digest(data)
    if sizes[MANIFEST_DIGEST] != len(digest) or _read(directory, MANIFEST_DIGEST) != digest:
        raise _corrupt(
            MANIFEST, f"its SHA-256 is not the one in {MANIFEST_DIGEST}: one of the two was changed"
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _corrupt(MANIFEST, f"not JSON: {error}") from error
    version = document.get("formatVersion") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise _corrupt(
            MANIFEST,
            f"formatVersion is {version!r}; this resight reads {FORMAT_VERSION}, use one that"
            " knows it",
        )
    try:
        return json_format.ParseDict(document, bundle_pb2.BundleManifest())
    except (json_format.ParseError, RecursionError) as error:
        raise _corrupt(MANIFEST, str(error)) from error


def _verify_files(
    directory: Path, manifest: bundle_pb2.BundleManifest, sizes: dict[str, int]
) -> None:
    listed: dict[str, bundle_pb2.BundleFile] = {}
    for entry in manifest.files:
        try:
            check_inner_path(entry.path)
        except ResightError as error:
            raise _corrupt(MANIFEST, error.message) from error
        if entry.path in listed or entry.path in {MANIFEST, MANIFEST_DIGEST}:
            raise _corrupt(MANIFEST, f"files lists {entry.path} twice")
        listed[entry.path] = entry
    if len(listed) > MAX_FILES or sum(sizes.values()) > MAX_BUNDLE_BYTES:
        raise _corrupt(MANIFEST, f"more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes")
    if ENCODER not in listed or listed[ENCODER].size_bytes > MAX_ENCODER_BYTES:
        raise _corrupt(MANIFEST, f"files lists no {ENCODER} of at most {MAX_ENCODER_BYTES} bytes")
    for name in sorted(sizes.keys() - listed.keys() - {MANIFEST, MANIFEST_DIGEST}):
        raise _corrupt(name, f"{MANIFEST} does not list it; remove it")
    for name, entry in listed.items():
        if name not in sizes:
            raise _corrupt(name, "it is missing")
        if sizes[name] != entry.size_bytes:
            raise _corrupt(name, f"it has {sizes[name]} bytes, not {entry.size_bytes}")
        if _sha256(directory / name) != entry.sha256:
            raise _corrupt(name, f"its SHA-256 is not the one in {MANIFEST}")


def _read(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except OSError as error:
        raise _corrupt(name, f"cannot be read: {error.strerror}") from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise _corrupt(path.name, f"cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _corrupt(name: str, what: str) -> BundleCorrupt:
    return BundleCorrupt(
        f"bundle file {name}: {what}. The bundle is refused; fetch or write it again", field=name
    )
