"""The bounds at the door."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resight.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from service.domain.ports import Priority
from service.pipeline.admission import Admission


def make(clock: Any = lambda: 0.0, **changed: Any) -> Admission:
    settings = {"max_images": 4, "max_bytes": 1000, "predict": lambda ahead: 0.5 * (ahead + 1)}
    return Admission(**(settings | changed), clock=clock)


@given(
    st.lists(st.tuples(st.sampled_from(Priority), st.integers(1, 400), st.booleans()), max_size=60)
)
def test_neither_bound_is_ever_passed(operations: list[tuple[Priority, int, bool]]) -> None:
    admission = make()
    held: list[tuple[ExitStack, int]] = []
    for priority, size, release in operations:
        if release and held:
            held.pop(0)[0].close()
        stack = ExitStack()
        try:
            stack.enter_context(admission.admit(size, priority=priority))
        except ResourceExhausted:
            assert held, "refused while empty"
        else:
            held.append((stack, size))
        assert admission.images == len(held) <= 4
        assert admission.bytes == sum(size for _, size in held) <= 1000
    for stack, _ in held:
        stack.close()
    assert (admission.images, admission.bytes) == (0, 0)


def test_bulk_work_leaves_room_for_queries() -> None:
    admission = make()
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(admission.admit(1, priority=Priority.BULK))
        with pytest.raises(ResourceExhausted) as caught:
            stack.enter_context(admission.admit(1, priority=Priority.BULK))
        assert caught.value.retry_after == pytest.approx(2.0)
        stack.enter_context(admission.admit(1, priority=Priority.INTERACTIVE))
        with pytest.raises(ResourceExhausted):
            stack.enter_context(admission.admit(1, priority=Priority.INTERACTIVE))


def test_a_deadline_passed_or_too_near_is_refused() -> None:
    admission = make(clock=lambda: 100.0)
    for deadline in (99.0, 100.0, 100.4):
        with (
            pytest.raises(DeadlineExceeded),
            admission.admit(1, priority=Priority.INTERACTIVE, deadline=deadline),
        ):
            pass
    with (
        admission.admit(1, priority=Priority.INTERACTIVE, deadline=100.6),
        pytest.raises(DeadlineExceeded),
        admission.admit(1, priority=Priority.INTERACTIVE, deadline=100.6),
    ):
        pass


def test_a_failure_inside_gives_the_permit_back() -> None:
    admission = make()
    with pytest.raises(KeyError), admission.admit(10, priority=Priority.BULK):
        raise KeyError
    assert (admission.images, admission.bytes) == (0, 0)


def test_closed_means_unavailable() -> None:
    admission = make()
    admission.close()
    with pytest.raises(Unavailable), admission.admit(1, priority=Priority.BULK):
        pass
