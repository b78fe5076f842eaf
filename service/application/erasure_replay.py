"""Erasures carried out again: whatever a restored catalog brought back goes, before anything is
served."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from service.catalog.crop_deletions import stored_instances
from service.catalog.erasure_again import erase_again
from service.catalog.store import Catalog
from service.domain.ports import Clock
from service.erasure_ledger import ErasureLedger, erased_blobs, process_name
from service.settings import ServiceSettings
from service.telemetry import ERASURES_REPLAYED

__all__ = ["Replayed", "open_ledger", "replay"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many erasures the ledger has, and how many crops had come back."""

    entries: int
    erased: int


def open_ledger(settings: ServiceSettings, catalog: Catalog, clock: Clock) -> ErasureLedger:
    """This process's ledger, after what all of them say has been done.

    Raises:
        FailedPrecondition: a ledger is damaged, or this one cannot be written.
        Unavailable: the catalog does not answer.
    """
    folder = settings.resolved_erasures_dir()
    ledger = ErasureLedger(folder, process_name(settings.data_dir))
    try:
        replay(catalog, folder, clock)
    except BaseException:
        ledger.close()
        raise
    return ledger


def replay(catalog: Catalog, folder: Path, clock: Clock) -> Replayed:
    """Delete every stored crop that the ledger names: catalog, vectors, log, and its image noted
    for removal. Called before the indexes are filled.

    Raises:
        FailedPrecondition: the ledger is damaged.
        Unavailable: the catalog does not answer.
    """
    began = time.perf_counter()
    entries = erased = 0
    for block in erased_blobs(folder):
        entries += len(block)
        found = catalog.read_now(stored_instances, block)
        if found:
            apply = partial(erase_again, blob_ids=sorted(found), now=clock.now())
            erased += catalog.writer.change(apply).result()
    if erased:
        ERASURES_REPLAYED.inc(erased)
        logger.warning(
            "erasure ledger: %d crops had come back with a restored catalog and are erased again "
            "(%d entries, %.2f s)",
            erased,
            entries,
            time.perf_counter() - began,
        )
    return Replayed(entries, erased)
