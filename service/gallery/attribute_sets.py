"""The attributes of rows: each distinct set of pairs once, and which sets match a condition."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from service.domain.crop import AttributeTerm
from service.gallery.postings import Postings
from service.gallery.vocabulary import Vocabulary

__all__ = ["AttributeSets"]

# One word of memory for each place of a list or tuple, and the object's head.
_WORD, _HEAD = 8, 56
# A small number as an object.
_NUMBER = 28


@dataclass(frozen=True, slots=True)
class _Frozen:
    """The sets when none is added any more.

    Args:
        starts: (S + 1,) int32: the pairs of set s are ``pairs[starts[s] : starts[s + 1]]``.
        pairs: int32, ascending in each set.
        of_pair: Of ``pairs``: where each pair stands.
        sets: int32, the set of each place in ``pairs``.
        of_key: Sets that have a key, int32 ascending.
    """

    starts: NDArray[np.int32]
    pairs: NDArray[np.int32]
    of_pair: Postings
    sets: NDArray[np.int32]
    of_key: Mapping[str, NDArray[np.int32]]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        arrays = (self.starts, self.pairs, self.sets, *self.of_key.values())
        return sum(array.nbytes for array in arrays) + self.of_pair.nbytes


class AttributeSets:
    """Sets of (key, value) pairs by code; code 0 is the empty set. Threads: as Vocabulary."""

    def __init__(self) -> None:
        self._pairs: Vocabulary[tuple[str, str]] = Vocabulary()
        # A set is the ascending codes of its pairs.
        self._sets: Vocabulary[tuple[int, ...]] = Vocabulary([()])
        self._of_pair: list[list[int]] = []
        self._of_key: dict[str, list[int]] = {}
        self._frozen: _Frozen | None = None

    def __len__(self) -> int:
        """Codes given."""
        return len(self._sets) if self._frozen is None else len(self._frozen.starts) - 1

    @property
    def nbytes(self) -> int:
        """About the memory it takes."""
        # A list first: another thread may be adding.
        texts = sum(len(value) + 2 * _HEAD for _, value in list(self._pairs.values))
        if self._frozen is not None:
            return self._pairs.nbytes + self._frozen.nbytes + texts
        places = sum(map(len, list(self._of_key.values())))
        postings = 2 * _WORD * places + _NUMBER * len(self) + (_HEAD + _WORD) * len(self._of_pair)
        return self._pairs.nbytes + self._sets.nbytes + texts + postings

    def mapping(self, code: int) -> dict[str, str]:
        """The attributes of a set."""
        values, frozen = self._pairs.values, self._frozen
        if frozen is None:
            return dict(values[pair] for pair in self._sets.values[code])
        pairs = frozen.pairs[frozen.starts[code] : frozen.starts[code + 1]]
        return dict(values[pair] for pair in pairs.tolist())

    def encode(self, attributes: Iterable[Mapping[str, str]]) -> NDArray[np.int32]:
        """The code of each map's set, int32 (N,); new ones are added."""
        known = len(self._sets)
        # Crops that come together are often alike.
        made: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {(): ()}
        keys: list[tuple[int, ...]] = []
        for mapping in attributes:
            # Keys are few, but each message brings its own copies.
            pairs = tuple((sys.intern(str(key)), value) for key, value in mapping.items())
            if pairs not in made:
                made[pairs] = tuple(sorted(self._pairs.encode(pairs).tolist()))
            keys.append(made[pairs])
        self._of_pair.extend([] for _ in range(len(self._pairs) - len(self._of_pair)))
        codes = self._sets.encode(keys)
        for code in range(known, len(self._sets)):
            for pair in self._sets.values[code]:
                self._of_pair[pair].append(code)
                self._of_key.setdefault(self._pairs.values[pair][0], []).append(code)
        return codes

    def freeze(self) -> None:
        """Take less memory; nothing can be encoded any more. Before any other thread looks up."""
        sets = self._sets.values
        sizes = np.fromiter(map(len, sets), np.int32, len(sets))
        starts = np.zeros(len(sets) + 1, np.int32)
        np.cumsum(sizes, out=starts[1:])
        pairs = np.fromiter(chain.from_iterable(sets), np.int32, int(starts[-1]))
        self._frozen = _Frozen(
            starts,
            pairs,
            Postings.of(pairs, len(self._pairs)),
            np.repeat(np.arange(len(sets), dtype=np.int32), sizes),
            {key: np.array(codes, np.int32) for key, codes in self._of_key.items()},
        )
        self._pairs.freeze()
        self._sets, self._of_pair, self._of_key = Vocabulary(), [], {}

    def adopt(self, other: AttributeSets, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Codes of ``other`` as codes of these sets; only sets in use are taken over."""
        used, places = np.unique(codes, return_inverse=True)
        return self.encode([other.mapping(code) for code in used.tolist()])[places]

    def codes(self, term: AttributeTerm, size: int) -> NDArray[np.int64]:
        """Those of the first ``size`` sets that match a term, ascending."""
        frozen = self._frozen
        pairs = self._pairs.find((term.key, value) for value in term.values)
        if frozen is not None:
            if not term.values:
                return frozen.of_key.get(term.key, np.empty(0, np.int32)).astype(np.int64)
            # A key has one value in a set, so no set is named twice.
            places = frozen.of_pair.rows(np.unique(np.array(pairs, np.int64)))
            return frozen.sets[places].astype(np.int64)
        if term.values:
            postings = [self._of_pair[pair] for pair in pairs if pair < len(self._of_pair)]
        else:
            postings = [found] if (found := self._of_key.get(term.key)) else []
        parts = [np.array(posting[: bisect_left(posting, size)], np.int64) for posting in postings]
        if len(parts) == 1:
            return parts[0]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def matching(self, term: AttributeTerm, size: int) -> NDArray[np.bool_]:
        """Which of the first ``size`` sets match a term, bool (size,)."""
        table = np.zeros(size, dtype=bool)
        table[self.codes(term, size)] = True
        return table
