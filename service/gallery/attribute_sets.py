"""The attributes of rows: each distinct set of pairs once, and which sets match a condition."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from service.domain.crop import AttributeTerm
from service.gallery.vocabulary import Vocabulary

__all__ = ["AttributeSets"]

# One word of memory for each place of a list or tuple, and the object's head.
_WORD, _HEAD = 8, 56


class AttributeSets:
    """Sets of (key, value) pairs by code; code 0 is the empty set. Threads: as Vocabulary."""

    def __init__(self) -> None:
        self._pairs: Vocabulary[tuple[str, str]] = Vocabulary()
        # A set is the ascending codes of its pairs.
        self._sets: Vocabulary[tuple[int, ...]] = Vocabulary([()])
        self._of_pair: list[list[int]] = []
        self._of_key: dict[str, list[int]] = {}

    def __len__(self) -> int:
        """Codes given."""
        return len(self._sets)

    @property
    def nbytes(self) -> int:
        """About the memory it takes."""
        # A list of them first: another thread may be adding.
        postings = sum(_WORD * len(codes) + _HEAD for codes in list(self._of_key.values()))
        texts = sum(len(key) + len(value) + 2 * _HEAD for key, value in self._pairs.values)
        return self._pairs.nbytes + self._sets.nbytes + texts + 2 * postings

    def mapping(self, code: int) -> dict[str, str]:
        """The attributes of a set."""
        pairs = self._pairs.values
        return dict(pairs[pair] for pair in self._sets.values[code])

    def encode(self, attributes: Iterable[Mapping[str, str]]) -> NDArray[np.int32]:
        """The code of each map's set, int32 (N,); new ones are added."""
        known = len(self._sets)
        # Crops that come together are often alike.
        made: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {(): ()}
        keys: list[tuple[int, ...]] = []
        for mapping in attributes:
            pairs = tuple(mapping.items())
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

    def adopt(self, other: AttributeSets, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Codes of ``other`` as codes of these sets; only sets in use are taken over."""
        used, places = np.unique(codes, return_inverse=True)
        return self.encode([other.mapping(code) for code in used.tolist()])[places]

    def codes(self, term: AttributeTerm, size: int) -> NDArray[np.int64]:
        """Those of the first ``size`` sets that match a term, ascending."""
        if term.values:
            pairs = self._pairs.find((term.key, value) for value in term.values)
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
