"""A bundle as one uncompressed ``.tar``."""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

from resight.bundle.layout import MANIFEST, MAX_BUNDLE_BYTES, MAX_FILES, check_inner_path
from resight.errors import BundleCorrupt, ResightError

__all__ = ["extract", "pack"]


def extract(archive: Path, folder: Path) -> Path:
    """Unpacks a bundle's archive into an empty folder.

    Only plain files and folders inside the archive are accepted, within the limits of a bundle.

    Returns:
        The folder that holds the manifest: ``folder`` or its only sub-folder.

    Raises:
        BundleCorrupt: Not an archive, cut short, over the limits, or with a link, a device, a
            doubled name or a name that leaves the folder.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            members = _checked_members(tar, archive)
            tar.extractall(folder, members, filter="data")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise BundleCorrupt(
            f"{archive.name}: cannot be unpacked as an uncompressed tar: {error};"
            " fetch the bundle again",
            field=archive.name,
        ) from error
    entries = list(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not (folder / MANIFEST).exists():
        return entries[0]
    return folder


def _checked_members(tar: tarfile.TarFile, archive: Path) -> list[tarfile.TarInfo]:
    members: list[tarfile.TarInfo] = []
    names: set[str] = set()
    total = 0
    for member in tar:
        name = member.name.removeprefix("./")
        if name in {"", "."} and member.isdir():
            continue
        try:
            check_inner_path(name)
        except ResightError as error:
            raise _refused(archive, error.message) from error
        if not (member.isreg() or member.isdir()) or member.sparse is not None:
            raise _refused(archive, f"{name!r} is neither a plain file nor a folder")
        total += member.size
        names.add(name)
        members.append(member)
        if len(names) != len(members):
            raise _refused(archive, f"{name!r} comes twice")
        if len(members) > 2 * MAX_FILES or total > MAX_BUNDLE_BYTES:
            raise _refused(archive, "more files or bytes than a bundle may have")
    return members


def _refused(archive: Path, what: str) -> BundleCorrupt:
    return BundleCorrupt(f"{archive.name}: {what}; fetch the bundle again", field=archive.name)


def pack(directory: Path, output: Path) -> None:
    """Packs a bundle's folder into one archive, the same bytes for the same files."""
    handle, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    try:
        with os.fdopen(handle, "wb") as stream, tarfile.open(fileobj=stream, mode="w:") as tar:
            for path in sorted(directory.rglob("*")):
                info = tar.gettarinfo(path, path.relative_to(directory).as_posix())
                info.uid = info.gid = info.mtime = 0
                info.uname = info.gname = ""
                info.mode = 0o755 if info.isdir() else 0o644
                if info.isdir():
                    tar.addfile(info)
                    continue
                with path.open("rb") as file:
                    tar.addfile(info, file)
            tar.close()
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        os.replace(name, output)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
