"""The id under which a process is known to the others: kept in its data directory.

So a process that is started again after a crash takes the place of the dead one at once, which the
directory's lock proves dead, and nobody waits for that one's heartbeat to expire. A copy of the
directory is another replica: the id counts only where it was written.
"""

from __future__ import annotations

import logging
from pathlib import Path
from uuid import UUID, uuid4

__all__ = ["replica_identity"]

logger = logging.getLogger(__name__)

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def replica_identity(folder: Path) -> UUID:
    """The id of the replica whose data directory this is, which the caller has locked."""
    path, place = folder / "replica", _place(folder)
    try:
        written, where = path.read_text("ascii").split()
        if where == place:
            return UUID(hex=written)
    except (OSError, ValueError):
        pass
    identity = uuid4()
    try:
        path.write_text(f"{identity.hex} {place}\n", "ascii")
    except OSError as error:
        logger.warning("data_dir: the replica's id could not be kept in %s: %s", path, error)
    return identity


def _place(folder: Path) -> str:
    """This folder of this machine since it was started; clones of a disk share all but the last."""
    found = folder.stat()
    boot = _BOOT.read_text("ascii").strip() if _BOOT.exists() else ""
    return f"{found.st_dev}:{found.st_ino}:{boot}"
