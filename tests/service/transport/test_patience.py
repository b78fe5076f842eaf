"""What is enough time for an answer, against the rules and what calls are counted with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextvars import copy_context
from math import inf
from pathlib import Path

import pytest

from service import call as call_in_progress
from service.call import Call
from service.transport.grpc.message import only_message
from service.transport.patience import (
    CALLER_DEADLINE,
    LONG_SECONDS,
    OBJECTIVE_SECONDS,
    counted_code,
)
from service.transport.rest.timeout import deadline_after

RULES = Path(__file__).parents[3] / "deploy/prometheus/resight-recording.rules.yml"


def test_enough_is_what_the_latency_rules_promise() -> None:
    assert set(re.findall(r'le="([\d.]+)"', RULES.read_text())) == {str(OBJECTIVE_SECONDS)}


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "504"])
@pytest.mark.parametrize(
    ("method", "enough"),
    [
        ("SearchService/Search", OBJECTIVE_SECONDS),
        ("EmbedService/Embed", OBJECTIVE_SECONDS),
        ("SearchService/SearchBatch", LONG_SECONDS),
        ("SearchService/LearnTravelTimes", LONG_SECONDS),
    ],
)
def test_who_gave_enough_was_let_down(code: str, method: str, enough: float) -> None:
    told = {
        given: counted_code(code, Call("grpc", method, patience=given))
        for given in (0.0, enough - 0.001, enough, inf)
    }
    assert list(told.values()) == [CALLER_DEADLINE, CALLER_DEADLINE, code, code]


@pytest.mark.parametrize("code", ["OK", "UNAVAILABLE", "CANCELLED", "INTERNAL", "503", "408"])
def test_other_codes_stay_what_they_are(code: str) -> None:
    assert counted_code(code, Call("grpc", "SearchService/Search", patience=0.0)) == code


def test_time_in_which_the_message_did_not_come_was_not_given() -> None:
    call = Call("grpc", "SearchService/Search", patience=60.0)
    seen = []

    async def messages() -> AsyncIterator[str]:
        seen.append(call.patience)
        await asyncio.sleep(0.05)
        yield "message"

    async def read() -> str:
        call_in_progress.begin(call)
        message: str = await only_message(messages())
        return message

    assert asyncio.run(read()) == "message"
    assert seen == [0.0]
    assert 0 < call.patience < 60.0 - 0.04


def test_the_header_says_what_is_given_over_rest() -> None:
    call = Call("rest", "SearchService/Search")

    def asked(seconds: float | None) -> float:
        call_in_progress.begin(call)
        deadline_after(seconds)
        return call.patience

    assert [copy_context().run(asked, seconds) for seconds in (None, 0.25)] == [inf, 0.25]


def test_work_of_our_own_waits_for_nobody() -> None:
    deadline_after(0.25)
    assert inf == call_in_progress.OWN.patience
