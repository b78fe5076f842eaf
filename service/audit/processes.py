"""Which processes lived within the time of a report, and under which policy: from the beginnings
and ends of the chains, whatever gallery the report is of.

A process that was killed leaves no end. It counts as alive until one of the same name begins after
it; and wherever it recorded something.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from typing import Any

from resight.errors import PermissionDenied
from service.audit.entry import CHAIN_BEGAN, CHAIN_ENDED, stamped
from service.audit.reading import ReadEntry, Source
from service.audit.span import Span
from service.audit.tables import Table
from service.catalog.audit import Selection

__all__ = ["Processes"]

_POLICIES = ("from", "replica", "setting", "value")
_PROCESSES = ("began", "replica", "version", "chain", "noticed", "ended")
_NO_END = "Without an end: it went on after this time, or died."
_REMOVED = "its beginning was removed (audit.keep_days), and with it what was in force"


class Processes:
    """Those of a time.

    Args:
        span: The time.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._began: list[ReadEntry] = []
        self._ended: dict[str, ReadEntry] = {}
        self._lost: list[str] = []
        self._refused = ""

    def read(self, source: Source, active: Set[str]) -> None:
        """Find them; a caller who may not read the audit of no gallery finds none, and is told.

        Args:
            source: The audit.
            active: Chains that recorded something within the time.
        """
        end = self._span.end
        try:
            ended = source.entries(Selection(end_time=end, action=CHAIN_ENDED))
            self._ended = {entry.chain_id: entry for entry in ended}
            known = list(source.entries(Selection(end_time=end, action=CHAIN_BEGAN)))
        except PermissionDenied as error:
            self._refused = f"not shown: {error}"
            return
        self._lost = sorted(active - {entry.chain_id for entry in known})
        following: dict[str, ReadEntry] = {}
        for entry in reversed(known):
            after = following.get(_said(entry, "replica"))
            following[_said(entry, "replica")] = entry
            if entry.chain_id in active or self._lived(entry, after):
                self._began.append(entry)
        self._began.reverse()

    def tables(self) -> Iterator[Table]:
        """What was in force, and the processes."""
        policies: list[list[str]] = []
        processes: list[list[str]] = []
        for entry in self._began:
            time, replica = stamped(entry.record_time), _said(entry, "replica")
            policy = entry.said.get("policy")
            if isinstance(policy, dict):
                policies += [
                    [time, replica, str(name), json.dumps(value, ensure_ascii=False)]
                    for name, value in sorted(policy.items())
                ]
            missing = entry.said.get("missing")
            noticed = (
                "" if missing is None else (f"the end of the chain before was missing: {missing}")
            )
            processes.append([
                time, replica, _said(entry, "version"), entry.chain_id, noticed,
                self._end_of(entry.chain_id),
            ])  # fmt: skip
        processes += [["", "", "", chain, _REMOVED, self._end_of(chain)] for chain in self._lost]
        yield Table("policies", "Retention and policy in force, by process", _POLICIES, policies,
                    self._refused)  # fmt: skip
        yield Table("processes", "Processes", _PROCESSES, processes, self._refused or _NO_END)

    def _lived(self, began: ReadEntry, after: ReadEntry | None) -> bool:
        ended = self._ended.get(began.chain_id)
        if ended is None and after is not None:
            ended = after
        return self._span.meets(began.record_time, None if ended is None else ended.record_time)

    def _end_of(self, chain_id: str) -> str:
        ended = self._ended.get(chain_id)
        return "" if ended is None else stamped(ended.record_time)


def _said(entry: ReadEntry, name: str) -> str:
    value: Any = entry.said.get(name, "")
    return value if isinstance(value, str) else ""
