"""A replica serves only while whoever erases waits for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from resight.errors import Unavailable
from service.application.blob_sweep import BlobsInFlight
from service.application.fence import Fence
from service.application.roll import Roll
from service.catalog.replicas import Standing

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_process_that_is_alone_always_serves() -> None:
    Fence().check()


def test_it_serves_from_the_first_catching_up_to_the_expiry_of_the_last_heartbeat() -> None:
    clock = Hand()
    fence = Fence(10, clock=clock)
    with pytest.raises(Unavailable) as caught:
        fence.check()
    assert caught.value.reason == "INDEX_STALE"
    fence.caught_up(fence.term)
    assert not fence.is_open, "caught up before anybody waits for it"
    fence.beaten(clock.now, anew=True)
    assert not fence.is_open, "an erasure before the first heartbeat may not be in the index"
    fence.caught_up(fence.term)
    fence.check()
    clock.now += 9.99
    fence.check()
    clock.now += 0.01
    assert not fence.is_open


def test_a_heartbeat_counts_from_its_beginning() -> None:
    clock = Hand()
    fence = Fence(10, clock=clock)
    fence.beaten(clock.now, anew=True)
    fence.caught_up(fence.term)
    begun = clock.now + 5
    clock.now += 9
    fence.beaten(begun)
    clock.now = begun + 9.9
    assert fence.is_open
    clock.now = begun + 10
    assert not fence.is_open


@pytest.mark.parametrize("silence", [10.0, 11.0, 3600.0])
def test_after_a_silence_it_serves_no_sooner_than_it_has_caught_up(silence: float) -> None:
    clock = Hand()
    fence = Fence(10, clock=clock)
    fence.beaten(clock.now, anew=True)
    before = fence.term
    fence.caught_up(before)
    clock.now += silence
    fence.beaten(clock.now)
    assert not fence.is_open
    fence.caught_up(before)
    assert not fence.is_open, "what was read before the silence does not count"
    fence.caught_up(fence.term)
    assert fence.is_open


def test_a_heartbeat_that_took_too_long_is_a_silence() -> None:
    clock = Hand()
    fence = Fence(10, clock=clock)
    fence.beaten(clock.now, anew=True)
    fence.caught_up(fence.term)
    begun = clock.now + 9
    # In the database it may have arrived at any moment up to now.
    clock.now += 11
    fence.beaten(begun)
    assert not fence.is_open


def test_a_replica_that_others_had_forgotten_begins_again() -> None:
    clock = Hand()
    fence = Fence(10, clock=clock)
    fence.beaten(clock.now, anew=True)
    fence.caught_up(fence.term)
    clock.now += 1
    fence.beaten(clock.now, anew=True)
    assert not fence.is_open


def standing(age: float, beat: int = 0, number: int = 1) -> Standing:
    return Standing(UUID(int=number), f"r{number}", NOON + timedelta(seconds=beat), age)


def test_the_dead_are_those_whom_both_clocks_hold_for_dead() -> None:
    clock = Hand()
    roll = Roll(10, clock=clock)
    # Not yet dead although its own fence is closed, and dead from then on.
    assert roll.alive([standing(10.9)])
    assert not roll.alive([standing(11.0)])
    # A replica that has beaten within sight is alive, wherever the database's clock has jumped to.
    roll.alive([standing(1.0, beat=1)])
    clock.now += 10.9
    assert [r.name for r in roll.alive([standing(7200.0, beat=1)])] == ["r1"]
    clock.now += 0.2
    assert not roll.alive([standing(7200.0, beat=1)])
    # The clock set back keeps the dead alive for longer, never the living dead.
    assert roll.alive([standing(-3600.0, beat=1)])


def test_a_replica_never_outlives_its_place_on_the_roll() -> None:
    """For any delay of a heartbeat on its way: once it is off the roll its fence is closed."""
    for delay in (0.0, 0.5, 3.0):
        clock = Hand()
        fence, roll = Fence(10, clock=clock), Roll(10, clock=clock)
        begun = clock.now
        arrived = begun + delay
        clock.now = arrived
        fence.beaten(begun, anew=True)
        fence.caught_up(fence.term)
        for step in range(200):
            clock.now = arrived + step * 0.1
            on_roll = roll.alive([standing(clock.now - arrived)])
            assert on_roll or not fence.is_open


def test_a_flight_is_safe_while_it_is_short_and_its_process_known() -> None:
    clock = Hand()
    clock.now = 0.0
    fence = Fence(10, clock=clock)
    fence.beaten(0, anew=True)
    flights = BlobsInFlight(fence, long=30, clock=clock)
    with flights.holding(UUID(int=1)) as flight:
        clock.now = 9.9
        assert flight.was_safe
        clock.now = 10.0
        assert not flight.was_safe
        fence.beaten(10.0)
        assert not flight.was_safe, "heard of again, but not all the time"
    with flights.holding(UUID(int=2)) as flight:
        for second in range(11, 40):
            clock.now = float(second)
            fence.beaten(clock.now)
        assert flight.was_safe
        clock.now = 40.0
        assert not flight.was_safe
