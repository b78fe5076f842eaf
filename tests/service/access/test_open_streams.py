"""Streams whose credentials lapse, with the looking stepped by events and real replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise

import pytest

from resight.errors import CredentialsLapsed, Unauthenticated, Unavailable
from service.access.open_streams import OpenStreams
from service.call import Call

SECONDS = 0.2


class Looks:
    """Whether credentials hold, and how often that was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.faults: dict[str, Exception] = {}
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, shown: str) -> None:
        self.asked.append(shown)
        await self.answers.wait()
        if shown in self.faults:
            raise self.faults[shown]


def opened() -> Call:
    call = Call("grpc", "GalleryService/IngestCrops")
    call.looked_at = time.monotonic()
    return call


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_one_look_is_for_all_streams_of_the_same_credentials() -> None:
    async def scenario() -> None:
        looks = Looks()
        streams = OpenStreams(looks, seconds=SECONDS)
        calls = [opened() for _ in range(300)]
        with ExitStack() as stack:
            for number, call in enumerate(calls):
                stack.enter_context(streams.one(call, f"key {number % 3}"))
            await until(lambda: len(looks.asked) >= 30)
            # Every look is at each of the three once, in whatever order.
            for start in range(0, 30, 3):
                assert sorted(looks.asked[start : start + 3]) == ["key 0", "key 1", "key 2"]
            looks.faults["key 1"] = Unauthenticated("revoked")
            await until(lambda: calls[1].lapsed is not None)
            await until(lambda: all((c.lapsed is not None) == (n % 3 == 1)
                                    for n, c in enumerate(calls)))  # fmt: skip
            fault = calls[1].lapsed
            assert isinstance(fault, CredentialsLapsed)
            assert fault.reason == "CREDENTIALS_LAPSED"
            before = len(looks.asked)
        # Nobody is left, so nobody is looked at, until there is somebody again.
        await until(lambda: streams._watching is not None and streams._watching.done())
        assert len(looks.asked) <= before + 3
        again = opened()
        with streams.one(again, "key 1"):
            await until(lambda: again.lapsed is not None)

    asyncio.run(scenario())


class Shown(str):
    """Credentials that count how often any two are compared."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Shown.compared += 1
        return super().__eq__(other)


def test_a_round_compares_no_credentials_with_all_others_and_lets_others_have_their_turn() -> None:
    async def scenario() -> None:
        turns: list[str] = []

        async def slow(shown: str) -> None:
            turns.append(shown)
            begun = time.monotonic()
            while time.monotonic() - begun < 0.01:
                pass

        async def other() -> None:
            while True:
                turns.append("other")
                await asyncio.sleep(0)

        streams, many = OpenStreams(slow, seconds=SECONDS), 40
        with ExitStack() as stack:
            for number in range(many):
                stack.enter_context(streams.one(opened(), Shown(f"key {number}")))
            Shown.compared = 0
            ticking = asyncio.create_task(other())
            await until(lambda: sum(turn != "other" for turn in turns) >= 2 * many)
            ticking.cancel()
            rounds = sum(turn != "other" for turn in turns) / many
            assert Shown.compared <= 4 * many * rounds
            pairs = pairwise(turns)
            assert not any("other" not in pair for pair in pairs)
        assert not streams._open

    asyncio.run(scenario())


def test_a_stream_that_does_not_end_is_broken_off() -> None:
    async def scenario() -> None:
        looks, call, told = Looks(), opened(), []
        looks.faults["key"] = Unauthenticated("revoked")
        streams = OpenStreams(looks, seconds=SECONDS)
        call.on_lapse = lambda: told.append(time.monotonic())
        with pytest.raises(asyncio.CancelledError), streams.one(call, "key"):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        assert len(told) == 1
        assert time.monotonic() - told[0] >= SECONDS * 0.9

    asyncio.run(scenario())


def test_no_message_passes_while_nobody_can_look() -> None:
    async def scenario() -> None:
        looks, call = Looks(), opened()
        streams = OpenStreams(looks, seconds=SECONDS)
        with streams.one(call, "key"):
            await streams.check(call, "key")
            looks.answers.clear()  # the catalog hangs
            await until(lambda: time.monotonic() - call.looked_at > SECONDS)
            passing = asyncio.create_task(streams.check(call, "key"))
            await asyncio.sleep(SECONDS)
            assert not passing.done()
            looks.faults["key"] = Unauthenticated("revoked meanwhile")
            looks.answers.set()
            with pytest.raises(Unauthenticated):
                await passing
            with pytest.raises(Unauthenticated):
                await streams.check(call, "key")

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [Unavailable("no catalog"), ZeroDivisionError("a bug")])
def test_what_cannot_be_known_ends_streams_too(fault: Exception) -> None:
    async def scenario() -> None:
        looks, call = Looks(), opened()
        looks.faults["key"] = fault
        with OpenStreams(looks, seconds=SECONDS).one(call, "key"):
            await until(lambda: call.lapsed is not None)
        assert isinstance(call.lapsed, Unavailable)
        assert "zero" not in call.lapsed.message

    asyncio.run(scenario())
