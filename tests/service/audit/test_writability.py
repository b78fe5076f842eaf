"""When the audit counts as lost, and as found again."""

from __future__ import annotations

from service.audit.writability import FOUND_SECONDS, LOST_SECONDS, Writability


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_lost_after_seconds_without_a_success_and_not_at_a_stumble() -> None:
    clock = Clock()
    made = Writability(clock=clock)
    assert made.look()
    made.failed()
    clock.now += LOST_SECONDS - 0.1
    made.failed()
    assert made.look()
    made.stored()
    clock.now += 1
    made.failed()
    clock.now += LOST_SECONDS - 0.1
    assert made.look()
    clock.now += 0.2
    assert not made.look()


def test_it_is_found_after_seconds_without_a_failure() -> None:
    clock = Clock()
    made = Writability(clock=clock)
    made.failed()
    clock.now += LOST_SECONDS
    assert not made.look()
    made.stored()
    assert not made.look()
    clock.now += FOUND_SECONDS - 0.1
    made.failed()
    assert not made.look()
    clock.now += 0.2
    assert not made.look()
    made.stored()
    made.stored()
    clock.now += FOUND_SECONDS
    assert made.look()


def test_a_change_that_was_given_up_had_failed_all_the_while() -> None:
    clock = Clock()
    made = Writability(clock=clock)
    clock.now += 60
    made.failed(after=LOST_SECONDS)
    assert not made.look()
    # But not longer than since the last success.
    made.stored()
    clock.now += FOUND_SECONDS
    assert made.look()
    made.failed(after=60)
    clock.now += LOST_SECONDS - FOUND_SECONDS - 0.1
    assert made.look()


def test_a_call_that_waited_too_long_among_others_that_were_stored_is_no_fault() -> None:
    clock = Clock()
    made = Writability(clock=clock)
    for _ in range(100):
        clock.now += 1
        made.stored()
        made.failed(after=10)
        assert made.look()
    clock.now += LOST_SECONDS
    assert not made.look()
