"""A first-in first-out queue per priority class, served by deficit round robin.

Shreedhar and Varghese, "Efficient fair queuing using deficit round-robin" (1995), with items of
equal cost: on its turn a class earns its weight in credit and pays one credit an item; a class
that runs empty loses its credit, so idleness cannot be saved up. Two backlogged classes are
served in the proportion of their weights, neither can starve, and a lone class is never held back.

Intended deviation: the turn and its credit survive between calls of ``pop``, so the proportion
also holds over many small batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from typing import Generic, TypeVar

__all__ = ["WeightedQueue"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class WeightedQueue(Generic[K, T]):
    """Items in classes; ``pop`` interleaves the classes by weight. Not thread-safe.

    Args:
        weights: Items served per turn, at least 1, for every class; the first is served first.
    """

    def __init__(self, weights: Mapping[K, int]) -> None:
        if not weights or min(weights.values()) < 1:
            raise ValueError("weights needs at least one class and every weight at least 1")
        self._weights = dict(weights)
        self._items: dict[K, deque[T]] = {key: deque() for key in weights}
        self._order = list(weights)
        self._turn = 0
        self._credit = self._weights[self._order[0]]

    def __len__(self) -> int:
        return sum(len(items) for items in self._items.values())

    def depth(self, key: K) -> int:
        """Items waiting in one class."""
        return len(self._items[key])

    def push(self, key: K, item: T) -> None:
        """Append an item to its class."""
        self._items[key].append(item)

    def pop(self) -> T | None:
        """Take the next item, or None when every class is empty."""
        if not len(self):
            return None
        while True:
            items = self._items[self._order[self._turn]]
            if items and self._credit > 0:
                self._credit -= 1
                return items.popleft()
            self._turn = (self._turn + 1) % len(self._order)
            self._credit = self._weights[self._order[self._turn]]

    def drain(self) -> Iterator[T]:
        """Take everything, in the order of ``pop``."""
        while (item := self.pop()) is not None:
            yield item
