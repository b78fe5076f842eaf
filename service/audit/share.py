"""What a verdict says to somebody limited to galleries: whether the audit holds, and what of it is
theirs.

Chains are of processes, not of galleries, so all of each is verified; but how much was done in
other galleries, and which of their entries is wrong, is not theirs to know.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from service.audit.chain_check import Fault
from service.audit.checkpoints import HEAD, Checkpoint
from service.catalog.audit import StoredEntry

__all__ = ["ELSEWHERE", "Share"]

ELSEWHERE = "something is wrong beside your entries; a key without limits is told what"


class Share:
    """Told every entry with what is wrong with it, in sequence, then asked.

    Args:
        galleries: Whose entries are theirs.
        sound: The checkpoints that hold.

    Attributes:
        entries: Theirs.
        unsigned_entries: Of these, those that no key vouches for yet.
    """

    def __init__(self, galleries: Collection[str], sound: Iterable[Checkpoint]) -> None:
        self.entries = 0
        self.unsigned_entries = 0
        self._galleries = frozenset(galleries)
        self._chains: set[UUID] = set()
        self._faults: list[Fault] = []
        self._vouching: set[tuple[UUID, int]] = set()
        self._signed: dict[UUID, list[int]] = defaultdict(list)
        for made in sound:
            if made.kind == HEAD:
                self._signed[made.chain_id].append(made.sequence)
        for sequences in self._signed.values():
            sequences.sort()

    def add(self, entry: StoredEntry, faults: Sequence[Fault], covered: int) -> None:
        """The next entry of its chain, what was found wrong when it was read, and up to which entry
        a key vouches for the chain.
        """
        if entry.gallery not in self._galleries:
            return
        self.entries += 1
        self._chains.add(entry.chain_id)
        self._faults += [fault for fault in faults if fault.sequence == entry.sequence]
        self.unsigned_entries += entry.sequence > covered
        signed = self._signed[entry.chain_id]
        place = bisect_left(signed, entry.sequence)
        if place < len(signed):
            self._vouching.add((entry.chain_id, signed[place]))

    @property
    def chains(self) -> int:
        """Those that they have entries in."""
        return len(self._chains)

    @property
    def checkpoints(self) -> int:
        """Those that vouch first for an entry of theirs."""
        return len(self._vouching)

    def faults(self, everything: Sequence[Fault]) -> list[Fault]:
        """What is wrong with their entries; one without a place stands for all else."""
        if len(everything) == len(self._faults):
            return list(self._faults)
        return [Fault("", 0, ELSEWHERE), *self._faults]
