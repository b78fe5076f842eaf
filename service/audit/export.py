"""Entries as JSON lines, each exported once.

A cursor file holds, of every chain, the last sequence that was written, and the time up to which
was read. The next export reads from an hour before that time and leaves out what the cursor knows:
an entry that was stored late, or by a machine whose clock is behind, is not passed over.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

from resight.errors import InvalidArgument
from service.audit.entry import stamped
from service.audit.reading import ReadEntry, Source
from service.catalog.audit import Selection

__all__ = ["OVERLAP", "export_entries"]

OVERLAP = timedelta(hours=1)


class _Cursor:
    def __init__(self, path: Path | None, gallery: str) -> None:
        self._path = path
        self._gallery = gallery
        self.chains: dict[str, int] = {}
        self.until: datetime | None = None
        if path is None or not path.exists():
            return
        try:
            said = json.loads(path.read_text("utf-8"))
            self.chains = {str(chain): int(last) for chain, last in said["chains"].items()}
            self.until = None if said["until"] is None else datetime.fromisoformat(said["until"])
            of = str(said.get("gallery", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(
                f"{path} is no cursor of an export ({error!r}); remove it to export everything "
                "again",
                field="cursor",
            ) from error
        if of != gallery:
            raise InvalidArgument(
                f"{path} is the cursor of an export of {of or 'all galleries'}, and would pass "
                f"over entries of {gallery or 'all galleries'}; give each export its own",
                field="cursor",
            )

    def passed(self, entry: ReadEntry) -> None:
        self.chains[entry.chain_id] = max(entry.sequence, self.chains.get(entry.chain_id, 0))
        if self.until is None or entry.record_time > self.until:
            self.until = entry.record_time

    def write(self) -> None:
        if self._path is None:
            return
        until = None if self.until is None else self.until.isoformat()
        half = self._path.with_name(f"{self._path.name}.new")
        with half.open("w", encoding="utf-8") as file:
            said = {"until": until, "chains": self.chains, "gallery": self._gallery}
            json.dump(said, file)
            file.flush()
            os.fsync(file.fileno())
        half.replace(self._path)


def export_entries(
    source: Source,
    *,
    output: Path | None,
    cursor: Path | None = None,
    gallery: str = "",
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> int:
    """Write what is new; returns how many entries.

    The cursor moves after the lines are on the disk: after a crash lines may come twice, with the
    same ``chain_id`` and ``sequence``, and none is missing.

    Args:
        source: Where entries are read.
        output: Appended to; stdout when None.
        cursor: Remembers what was exported.
        gallery: Of this one alone; of all and of none when empty.
        start_time, end_time: Bounds besides.

    Raises:
        InvalidArgument: the cursor or the output cannot be used, or the cursor is of another
            gallery's export.
    """
    known = _Cursor(cursor, gallery)
    begin = start_time
    if known.until is not None:
        overlapping = known.until - OVERLAP
        begin = overlapping if begin is None else max(begin, overlapping)
    count = 0
    with ExitStack() as opening:
        stream: TextIO = sys.stdout
        if output is not None:
            try:
                stream = opening.enter_context(output.open("a", encoding="utf-8"))
            except OSError as error:
                raise InvalidArgument(
                    f"{output} cannot be written ({error})", field="output"
                ) from error
        wanted = Selection(gallery=gallery, start_time=begin, end_time=end_time)
        for entry in _new(source, wanted, known):
            stream.write(_line(entry))
            known.passed(entry)
            count += 1
        stream.flush()
        if output is not None:
            os.fsync(stream.fileno())
    known.write()
    return count


def _new(source: Source, wanted: Selection, known: _Cursor) -> Iterator[ReadEntry]:
    """Entries that were not exported before; the page after may have some that come late."""
    before = dict(known.chains)
    for entry in source.entries(wanted):
        if entry.sequence > before.get(entry.chain_id, 0):
            yield entry


def _line(entry: ReadEntry) -> str:
    shown = {
        "chain_id": entry.chain_id,
        "sequence": entry.sequence,
        "record_time": stamped(entry.record_time),
        "digest": entry.digest,
        "body": entry.body,
        "entry": entry.said,
    }
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")) + "\n"
