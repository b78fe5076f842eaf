"""Which processes lived within the time of a report, and under which policy: from the beginnings
and ends of the chains, whatever gallery the report is of.

A process that was killed leaves no end. It counts as alive until one of the same name begins after
it; and wherever it recorded something.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

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


@dataclass(frozen=True, slots=True)
class _Beginning:
    """A first entry without the chains that it names, which may be many."""

    chain_id: str
    time: datetime
    replica: str
    version: str
    policy: Mapping[str, Any]
    missing: str

    @classmethod
    def of(cls, entry: ReadEntry) -> Self:
        policy, missing = entry.said.get("policy"), entry.said.get("missing")
        return cls(
            entry.chain_id,
            entry.record_time,
            str(entry.said.get("replica", "")),
            str(entry.said.get("version", "")),
            policy if isinstance(policy, dict) else {},
            "" if missing is None else f"the end of the chain before was missing: {missing}",
        )


class Processes:
    """Those of a time.

    Args:
        span: The time.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._began: list[_Beginning] = []
        self._ended: dict[str, datetime] = {}
        self._lost: list[str] = []
        self._refused = ""

    def read(self, source: Source, active: Set[str]) -> None:
        """Find them; whoever is limited to galleries may not, and is told so.

        Args:
            source: The audit.
            active: Chains that recorded something within the time.
        """
        end = self._span.end
        try:
            ended = source.entries(Selection(end_time=end, action=CHAIN_ENDED))
            self._ended = {entry.chain_id: entry.record_time for entry in ended}
            began = source.entries(Selection(end_time=end, action=CHAIN_BEGAN))
            known = [_Beginning.of(entry) for entry in began]
        except PermissionDenied as error:
            self._refused = f"not shown: {error}"
            return
        self._lost = sorted(active - {one.chain_id for one in known})
        after: dict[str, datetime] = {}
        for one in reversed(known):
            ended_by = self._ended.get(one.chain_id) or after.get(one.replica)
            after[one.replica] = one.time
            if one.chain_id in active or self._span.meets(one.time, ended_by):
                self._began.append(one)
        self._began.reverse()

    def tables(self) -> Iterator[Table]:
        """What was in force, and the processes."""
        policies = [
            [stamped(one.time), one.replica, str(name), json.dumps(value, ensure_ascii=False)]
            for one in self._began
            for name, value in sorted(one.policy.items())
        ]
        processes = [
            [stamped(one.time), one.replica, one.version, one.chain_id, one.missing,
             self._end_of(one.chain_id)]
            for one in self._began
        ]  # fmt: skip
        processes += [["", "", "", chain, _REMOVED, self._end_of(chain)] for chain in self._lost]
        yield Table("policies", "Retention and policy in force, by process", _POLICIES, policies,
                    self._refused)  # fmt: skip
        yield Table("processes", "Processes", _PROCESSES, processes, self._refused or _NO_END)

    def _end_of(self, chain_id: str) -> str:
        ended = self._ended.get(chain_id)
        return "" if ended is None else stamped(ended)
