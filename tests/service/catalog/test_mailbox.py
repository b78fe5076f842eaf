"""Answers of a thread, brought to a loop."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import Future

import pytest

from service.catalog.mailbox import Mailbox


def test_everybody_gets_their_own_answer_with_fewer_wake_ups(monkeypatch) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        wakes = []
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(
            loop, "call_soon_threadsafe", lambda *call: wakes.append(1) or wake(*call)
        )
        mailbox = Mailbox(loop)
        futures: list[Future[int]] = [Future() for _ in range(500)]
        waiting = [asyncio.create_task(mailbox.result(future)) for future in futures]
        await asyncio.sleep(0)

        def answer() -> None:
            for number, future in random.Random(1).sample(list(enumerate(futures)), 500):
                if number % 7 == 0:
                    future.set_exception(KeyError(number))
                else:
                    future.set_result(number)

        thread = threading.Thread(target=answer)
        # While the loop does not look, everything arrives.
        thread.start()
        thread.join()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        for number, result in enumerate(found):
            if number % 7 == 0:
                assert isinstance(result, KeyError)
                assert result.args == (number,)
            else:
                assert result == number
        assert len(wakes) == 1

    asyncio.run(work())


def test_answers_that_come_while_others_are_handed_out_are_not_forgotten() -> None:
    async def work() -> None:
        mailbox = Mailbox(asyncio.get_running_loop())
        futures: list[Future[int]] = [Future() for _ in range(3000)]
        thread = threading.Thread(
            target=lambda: [future.set_result(place) for place, future in enumerate(futures)]
        )
        waiting = [asyncio.create_task(mailbox.result(future)) for future in futures]
        await asyncio.sleep(0)
        thread.start()
        assert await asyncio.wait_for(asyncio.gather(*waiting), 120) == list(range(3000))
        thread.join()

    asyncio.run(work())


def test_who_leaves_cancels_what_was_not_begun_and_harms_nobody() -> None:
    async def work() -> None:
        mailbox = Mailbox(asyncio.get_running_loop())
        left, stays = Future[int](), Future[int]()
        leaving = asyncio.create_task(mailbox.result(left))
        staying = asyncio.create_task(mailbox.result(stays))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert left.cancelled()
        stays.set_result(1)
        assert await staying == 1

    asyncio.run(work())


def test_a_group_gets_its_answers_in_its_order_and_faults_as_values() -> None:
    async def work() -> None:
        mailbox = Mailbox(asyncio.get_running_loop())
        futures: list[Future[int]] = [Future() for _ in range(6)]
        waiting = asyncio.create_task(mailbox.results(futures))
        await asyncio.sleep(0)

        def answer() -> None:
            futures[3].set_exception(KeyError(3))
            for place in (5, 0, 4, 2, 1):
                futures[place].set_result(place)

        thread = threading.Thread(target=answer)
        thread.start()
        found = await asyncio.wait_for(waiting, 120)
        thread.join()
        assert isinstance(found[3], KeyError)
        assert [*found[:3], *found[4:]] == [0, 1, 2, 4, 5]
        assert await mailbox.results([]) == []

    asyncio.run(work())
