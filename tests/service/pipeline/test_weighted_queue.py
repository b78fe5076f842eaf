"""The weighted queue against what deficit round robin promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.pipeline.weighted_queue import WeightedQueue


@given(
    items=st.lists(st.sampled_from("ab"), max_size=80),
    a=st.integers(1, 6),
    b=st.integers(1, 6),
)
def test_nothing_is_lost_and_classes_stay_in_order(items: list[str], a: int, b: int) -> None:
    queue: WeightedQueue[str, tuple[str, int]] = WeightedQueue({"a": a, "b": b})
    for number, key in enumerate(items):
        queue.push(key, (key, number))
    popped = list(queue.drain())
    assert sorted(popped, key=lambda item: item[1]) == list(zip(items, range(80), strict=False))
    for key in "ab":
        own = [number for k, number in popped if k == key]
        assert own == sorted(own)
    both = min(items.count("a") // a, items.count("b") // b)
    share = popped[: both * (a + b)]
    assert [k for k, _ in share].count("a") == both * a


@given(pushes=st.lists(st.integers(0, 3), min_size=30, max_size=60), weight=st.integers(1, 5))
def test_a_waiting_class_is_served_within_one_turn_of_the_other(
    pushes: list[int], weight: int
) -> None:
    queue: WeightedQueue[str, int] = WeightedQueue({"fast": weight, "slow": 1})
    queue.push("slow", -1)
    waited = 0
    for count in pushes:
        for _ in range(count + 1):
            queue.push("fast", 1)
        if queue.pop() == -1:
            break
        waited += 1
    assert waited <= weight


def test_weights_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        WeightedQueue({"a": 0})
