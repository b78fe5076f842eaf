"""How long a caller may keep us waiting, with a clock that what comes moves on."""

from __future__ import annotations

import asyncio

import pytest

from service import pace as module
from service.pace import Pace

SECONDS = 60.0


class Hand:
    """A clock that stands still while nothing is said to take time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def takes(self, seconds: float) -> str:
        self.now += seconds
        await asyncio.sleep(0)
        return "piece"


async def silence() -> str:
    await asyncio.Event().wait()
    return "never"


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    clock = Hand()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_what_comes_at_the_rate_may_take_its_time(hand: Hand) -> None:
    async def work() -> None:
        pace = Pace(SECONDS, bytes_per_second=100)
        for _ in range(50):
            assert await pace.wait(hand.takes(50.0)) == "piece"
            pace.came(5000)

    asyncio.run(work())
    assert hand.now > 1000 + 40 * SECONDS


def test_whoever_falls_behind_the_rate_is_not_waited_for(hand: Hand) -> None:
    async def work() -> int:
        pace = Pace(SECONDS, bytes_per_second=100)
        for number in range(1000):
            try:
                await pace.wait(hand.takes(10.0))
            except TimeoutError:
                return number
            pace.came(500)
        return 1000

    # Of each 10 s half are made up for.
    assert asyncio.run(work()) in (11, 12, 13)


def test_without_a_rate_all_of_it_has_the_seconds(hand: Hand) -> None:
    async def work() -> None:
        pace = Pace(SECONDS)
        for _ in range(6):
            await pace.wait(hand.takes(SECONDS / 6))
            pace.came(1_000_000)
        with pytest.raises(TimeoutError):
            await pace.wait(silence())

    asyncio.run(work())


def test_nobody_saves_up_for_a_silence(hand: Hand) -> None:
    async def work() -> None:
        pace = Pace(0.05, bytes_per_second=1)
        await pace.wait(hand.takes(0.0))
        pace.came(1_000_000)
        async with asyncio.timeout(120):
            with pytest.raises(TimeoutError):
                await pace.wait(silence())

    asyncio.run(work())


def test_what_is_done_between_two_pieces_costs_nothing(hand: Hand) -> None:
    async def work() -> None:
        pace = Pace(SECONDS)
        for _ in range(10):
            await pace.wait(hand.takes(1.0))
            hand.now += 100 * SECONDS

    asyncio.run(work())


def test_what_is_there_already_is_taken_however_late_it_is(hand: Hand) -> None:
    async def there() -> str:
        return "piece"

    async def work() -> None:
        pace = Pace(SECONDS)
        await pace.wait(hand.takes(2 * SECONDS))
        assert await pace.wait(there()) == "piece"

    asyncio.run(work())
