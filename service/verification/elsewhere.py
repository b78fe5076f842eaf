"""An index whose rows lie outside this process, compared with the catalog.

It has no state to pin, so it is looked at in blocks on the writer's thread, which alone changes it:
each block is compared at one position of the log, and writes wait for one block at most. Vectors
are compared, not what filters read beside them.
"""

from __future__ import annotations

from functools import partial
from uuid import UUID

import numpy as np

from service.application.gallery import Gallery
from service.application.serving import Serving
from service.catalog import log_reads, vector_reads
from service.catalog.store import Catalog
from service.verification.findings import Findings

__all__ = ["compare_elsewhere"]

BLOCK = 2000


def compare_elsewhere(
    catalog: Catalog, live: Gallery, serving: Serving, findings: Findings
) -> list[UUID]:
    """Compare the index of a model; returns the crops whose rows are wrong."""
    with catalog.connect() as connection:
        stored = vector_reads.vector_ids(connection, serving.record)
    halves = np.unique(np.concatenate([stored, serving.index.ids()]), axis=0)
    ids = [UUID(int=high << 64 | low) for high, low in halves.tolist()]
    wrong: list[UUID] = []
    for start in range(0, len(ids), BLOCK):
        block = ids[start : start + BLOCK]
        work = partial(_compare, catalog, live, serving, block)
        found = catalog.writer.run(work).result()
        for kind, subjects in found.items():
            findings.add(kind, subjects)
            wrong += subjects
    return wrong


def _compare(
    catalog: Catalog, live: Gallery, serving: Serving, ids: list[UUID]
) -> dict[str, list[UUID]]:
    """On the writer's thread."""
    while True:
        live.follow()
        with catalog.connect() as connection:
            if log_reads.newest_position(connection, live.row) != live.applied:
                # Another replica has written in between.
                continue
            rows = vector_reads.vectors_of(connection, serving.record, ids)
        break
    stored: dict[UUID, bytes] = {}
    if rows is not None:
        for (high, low), vector in zip(rows.ids.tolist(), rows.vectors, strict=True):
            stored[UUID(int=high << 64 | low)] = vector.tobytes()
    places, vectors = serving.index.vectors_of(ids)
    held = {
        ids[place]: vector.astype(np.float32, copy=False).tobytes()
        for place, vector in zip(places.tolist(), vectors, strict=True)
    }
    both = stored.keys() & held.keys()
    return {
        "INDEX_ROW_MISSING": sorted(stored.keys() - held.keys()),
        "INDEX_ROW_EXTRA": sorted(held.keys() - stored.keys()),
        "INDEX_ROW_DIFFERS": sorted(key for key in both if stored[key] != held[key]),
    }
