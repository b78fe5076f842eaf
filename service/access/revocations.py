"""Revoked keys, remembered beside the erasure ledger: no restored catalog lets them in again.

A file for each, named by the key's id and empty: written before the revocation is committed, so it
can name a key that is not revoked yet, which is then revoked at the next start, never the other way
round. Outside snapshots, as the ledger is; whoever restores keeps the folder, or copies it.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path

from resight.durable import flush_folder
from resight.errors import FailedPrecondition
from service.catalog import api_keys
from service.catalog.store import Catalog
from service.domain.ports import Clock
from service.private_files import make_private_folder

__all__ = ["Revocations"]

logger = logging.getLogger(__name__)

_NAME = "revoked-keys"
_KEY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Revocations:
    """Those of one catalog.

    Args:
        folder: Where erasures are remembered.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _NAME

    def note(self, key_id: str) -> None:
        """Remember, for good, that a key is revoked. Blocking.

        Raises:
            FailedPrecondition: it cannot be written, so the key must not be said to be revoked.
        """
        if not _KEY_ID.fullmatch(key_id):
            return  # no key of ours
        try:
            make_private_folder(self._folder)
            (self._folder / key_id).touch(mode=0o600)
            flush_folder(self._folder)
        except OSError as error:
            raise FailedPrecondition(
                "erasures_dir: the revocation cannot be kept, and a restored catalog would let the "
                "key in again; mend the folder and revoke it again",
                detail=f"{self._folder}: {error.strerror}",
                field="erasures_dir",
                reason="REVOCATION_NOT_KEPT",
            ) from error

    def replay(self, catalog: Catalog, clock: Clock) -> int:
        """Revoke every remembered key that is valid again; returns how many were. Blocking.

        Raises:
            FailedPrecondition: the folder cannot be read.
            Unavailable: the catalog does not answer.
        """
        try:
            names = sorted(entry.name for entry in self._folder.iterdir())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise FailedPrecondition(
                f"erasures_dir: {self._folder} cannot be read ({error.strerror}); without it keys "
                "that were revoked may be let in",
                field="erasures_dir",
            ) from error
        came_back = []
        for name in filter(_KEY_ID.fullmatch, names):
            stored = catalog.read_now(api_keys.find_key, name)
            if stored is not None and stored.key.revoke_time is None:
                revoke = partial(api_keys.revoke_key, key_id=name, now=clock.now())
                catalog.writer.change(revoke).result()
                came_back.append(name)
        if came_back:
            logger.warning(
                "keys: %d had come back with a restored catalog and are revoked again (%s)",
                len(came_back),
                ", ".join(came_back[:10]),
            )
        return len(came_back)
