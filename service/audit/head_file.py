"""Where this replica's chain ended, beside the catalog: what a catalog that was set back lacks.

Written after every change and not flushed: it survives the process, and after a power cut it may be
behind the catalog, never ahead of what was stored.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from uuid import UUID

from service.audit.chain import Head

__all__ = ["HEAD_FILE", "HeadFile"]

logger = logging.getLogger(__name__)

# In the data directory.
HEAD_FILE = "audit-head"
_BYTES = 256


class HeadFile:
    """A file of one head, padded with spaces so that it is always written in one piece.

    Args:
        path: In the data directory, which this process holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def read(self) -> Head | None:
        """The head that was written last; None for none."""
        try:
            said = json.loads(self._path.read_bytes())
            return Head(UUID(hex=said["chain"]), int(said["sequence"]), bytes.fromhex(said["head"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read and is ignored: %s", self._path, error)
            return None

    def write(self, head: Head) -> None:
        """Keep a head; a failure is logged, as the catalog has it anyhow."""
        said = {
            "chain": head.chain_id.hex,
            "sequence": head.sequence,
            "head": head.digest.hex(),
        }
        try:
            if self._handle is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
                self._handle = os.open(self._path, flags, 0o600)
            os.pwrite(self._handle, json.dumps(said).encode().ljust(_BYTES), 0)
        except OSError as error:
            logger.warning("%s cannot be written: %s", self._path, error)

    def close(self) -> None:
        """Let the file go."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
