"""One chain compared with its own digests, and with whatever was said about it elsewhere."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from service.audit.chain import Head, beginning, following
from service.audit.checkpoints import Checkpoint
from service.audit.entry import CHAIN_BEGAN, columns_of, stamped
from service.audit.entry_queue import MAX_BATCH
from service.catalog.audit import StoredEntry

__all__ = ["ChainCheck", "Fault"]

_SLACK = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and with which entry first; sequence 0 is the chain as a whole."""

    chain_id: str
    sequence: int
    description: str


@dataclass(frozen=True, slots=True)
class _Expected:
    digest: bytes
    by: str


class ChainCheck:
    """Told what is said about a chain, then its entries in sequence, then asked.

    Args:
        chain_id: The chain.
        base: From where on it is kept, when its signature holds.
    """

    def __init__(self, chain_id: UUID, base: Checkpoint | None) -> None:
        self.chain_id = chain_id
        self.faults: list[Fault] = []
        self.entries = 0
        start = beginning(chain_id)
        if base is not None:
            start = Head(chain_id, base.sequence, base.digest)
        self._start = start
        self._last = start.sequence
        # Of the entry before: as stored and as computed, so that one altered digest is one fault.
        self._before = [start]
        self._expected: dict[int, list[_Expected]] = defaultdict(list)
        self._covered = start.sequence
        self._is_signed = base is not None
        self._times: dict[str, datetime] = {}
        self._policy: dict[str, float] = {}

    def expect(self, sequence: int, digest: bytes, by: str, *, signed: bool) -> None:
        """Something says that entry ``sequence`` has this digest; signed when a key vouches."""
        if sequence < self._start.sequence:
            return
        if signed:
            self._is_signed = True
            self._covered = max(self._covered, sequence)
        if sequence == self._start.sequence:
            if digest != self._start.digest:
                self._fault(sequence, f"{by} says that its digest was another")
            return
        self._expected[sequence].append(_Expected(digest, by))

    def add(self, entry: StoredEntry) -> None:
        """The next stored entry."""
        self.entries += 1
        if entry.sequence <= self._start.sequence:
            self._fault(entry.sequence, "it is from before what was kept")
            return
        if entry.sequence != self._last + 1:
            self._fault(self._last + 1, f"missing, as far as entry {entry.sequence - 1}")
        elif entry.digest not in [
            following(Head(before.chain_id, self._last, before.digest), entry.body).digest
            for before in self._before
        ]:
            self._fault(entry.sequence, "its digest is not that of its body and the entry before")
        self._compare_columns(entry)
        for expected in self._expected.pop(entry.sequence, []):
            if expected.digest != entry.digest:
                self._fault(entry.sequence, f"{expected.by} says that its digest was another")
        computed = following(Head(self.chain_id, self._last, self._before[-1].digest), entry.body)
        self._last = entry.sequence
        self._before = [
            Head(self.chain_id, entry.sequence, entry.digest),
            Head(self.chain_id, entry.sequence, computed.digest),
        ]
        if entry.sequence == self._covered + 1:
            self._times["first"] = entry.record_time
        self._times["last"] = entry.record_time

    @property
    def covered(self) -> int:
        """Up to which entry a key vouches for it."""
        return self._covered

    def end(self) -> int:
        """All entries were added; returns how many no key vouches for."""
        if self._expected:
            missing = min(self._expected)
            by = self._expected[missing][0].by
            self._fault(
                self._last + 1, f"missing: {by} says that the chain reached entry {missing}"
            )
        if not self._is_signed:
            self._fault(1, "no checkpoint whose signature holds vouches for any of it")
        unsigned = max(0, self._last - self._covered)
        if unsigned and self._policy and self._is_signed:
            first = self._times.get("first", self._times["last"])
            span = self._times["last"] - first
            longest = timedelta(seconds=2 * self._policy["checkpoint_seconds"]) + _SLACK
            if unsigned > self._policy["checkpoint_entries"] + 2 * MAX_BATCH or span > longest:
                self._fault(
                    self._covered + 1, "from here on checkpoints are missing that were to be made"
                )
        return unsigned

    def _compare_columns(self, entry: StoredEntry) -> None:
        try:
            said = columns_of(entry.body)
            if entry.sequence == 1:
                self._read_policy(entry.body)
        except (ValueError, KeyError, TypeError) as error:
            self._fault(entry.sequence, f"its body cannot be read ({error})")
            return
        if entry.sequence == 1 and said["action"] != CHAIN_BEGAN:
            self._fault(1, "it is not the beginning of a chain")
        shown = {
            "time": stamped(entry.record_time),
            "action": entry.action,
            "principal": entry.principal,
            "gallery": entry.gallery,
        }
        for name, value in shown.items():
            if said[name] != value:
                self._fault(entry.sequence, f"the column {name} is not what its body says")

    def _read_policy(self, body: str) -> None:
        policy = json.loads(body).get("policy") or {}
        wanted = ("checkpoint_entries", "checkpoint_seconds")
        if all(name in policy for name in wanted):
            self._policy = {name: float(policy[name]) for name in wanted}

    def _fault(self, sequence: int, description: str) -> None:
        self.faults.append(Fault(self.chain_id.hex, sequence, description))
