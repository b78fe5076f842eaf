"""Spans below calls, without a service: what is made where, and nothing while tracing is off."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from service.context_threads import ContextThreads
from service.telemetry import stage
from service.tracing import spans
from service.tracing.trace import MOST_SPANS, begin_call, here, install, trace_id


@dataclass(eq=False)
class Made:
    """A span that a test can look at."""

    name: str
    parent: Made | None
    links: list[Any] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    ended: int = 0
    failed: str = ""
    recording: bool = True

    trace_id = span_id = 1
    trace_flags = 1

    def is_recording(self) -> bool:
        return self.recording

    def get_span_context(self) -> Made:
        return self

    def update_name(self, name: str) -> None:
        self.name = name

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self.attributes |= attributes

    def end(self, _at: int = 0) -> None:
        self.ended += 1


class Recorder:
    """A tracer that keeps what it makes."""

    def __init__(self) -> None:
        self.made: list[Made] = []
        self.recording = True

    def root(self, name: str, _headers: Mapping[str, str], _attributes: Any) -> Any:
        return self._kept(Made(name, None, recording=self.recording))

    def linked(self, name: str, to: Sequence[Any], _attributes: Any, **_times: Any) -> Any:
        return self._kept(Made(name, None, links=list(to)))

    def child(self, name: str, below: Any, _attributes: Any, **_times: Any) -> Any:
        return self._kept(Made(name, below))

    def fail(self, span: Any, kind: str) -> None:
        span.failed = kind

    def _kept(self, made: Made) -> Made:
        self.made.append(made)
        return made

    def names(self) -> list[str]:
        return [made.name for made in self.made]


@pytest.fixture
def tracer() -> Iterator[Recorder]:
    recorder = Recorder()
    install(recorder)
    yield recorder
    install(None)


def test_a_service_that_traces_nothing_imports_nothing() -> None:
    code = (
        "import sys; import service.runtime; "
        "parts = ('opentelemetry.sdk', 'opentelemetry.exporter'); "
        "print([name for name in sys.modules if name.startswith(parts)])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_off_no_object_is_made() -> None:
    assert begin_call("call", {}) is None
    assert here() is None
    assert spans.leaf("a") is spans.leaf("b")

    def work() -> None:
        for _ in range(1000):
            with spans.leaf("db") as leaf:
                leaf.note(rows=1)

    work()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        assert tracemalloc.get_traced_memory()[0] - before < 1000
    finally:
        tracemalloc.stop()


def test_stages_hang_below_the_call_on_other_threads_too(tracer: Recorder) -> None:
    async def call() -> None:
        traced = begin_call("call", {})
        assert traced is not None
        with stage("db"):
            pass
        with ContextThreads(1) as carrying, ThreadPoolExecutor(1) as bare:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(carrying, _staged, "search")
            await loop.run_in_executor(bare, _staged, "filter")
        traced.end("call", {})

    asyncio.run(call())
    assert tracer.names() == ["call", "db", "search"]
    assert {made.parent for made in tracer.made[1:]} == {tracer.made[0]}
    assert all(made.ended == 1 for made in tracer.made)


def _staged(name: Any) -> None:
    with stage(name):
        pass


def test_calls_side_by_side_do_not_mix(tracer: Recorder) -> None:
    async def call(number: int) -> None:
        traced = begin_call(f"call {number}", {})
        assert traced is not None
        for part in range(3):
            await asyncio.sleep(0)
            with spans.section(f"part {number}.{part}"):
                await asyncio.sleep(0)
                with spans.leaf(f"leaf {number}.{part}"):
                    await asyncio.sleep(0)
        traced.end(f"call {number}", {})

    async def all_calls() -> None:
        await asyncio.gather(*(call(number) for number in range(5)))

    asyncio.run(all_calls())
    for made in tracer.made:
        kind, _, at = made.name.partition(" ")
        above = {"call": None, "part": f"call {at[0]}", "leaf": f"part {at}"}[kind]
        assert (made.parent.name if made.parent else None) == above


def test_a_generator_closed_by_another_task_ends_its_spans(tracer: Recorder) -> None:
    """What a garbage collected stream does; a token of a context variable would be refused."""

    async def stream() -> AsyncIterator[int]:
        traced = begin_call("call", {})
        assert traced is not None
        try:
            with spans.section("part"):
                for number in range(10):
                    with spans.leaf("item"):
                        pass
                    yield number
        finally:
            traced.end("call", {})

    async def main() -> None:
        numbers: Any = stream()

        async def begin() -> None:
            await anext(numbers)

        await asyncio.create_task(begin())
        await asyncio.create_task(numbers.aclose())
        async with aclosing(stream()) as again:
            async for _ in again:
                break
        assert here() is None

    asyncio.run(main())
    assert tracer.names() == ["call", "part", "item"] * 2
    assert all(made.ended == 1 for made in tracer.made)
    assert [made.failed for made in tracer.made[:3]] == ["", "GeneratorExit", ""]


def test_nothing_is_added_below_a_call_that_has_ended(tracer: Recorder) -> None:
    async def main() -> None:
        traced = begin_call("call", {})
        assert traced is not None
        late = asyncio.create_task(_later())
        traced.end("call", {})
        await late

    asyncio.run(main())
    assert tracer.names() == ["call"]


async def _later() -> None:
    await asyncio.sleep(0.01)
    with spans.leaf("late"), spans.section("later"):
        pass


def test_a_call_that_is_not_recorded_makes_no_more_spans(tracer: Recorder) -> None:
    async def main() -> str:
        tracer.recording = False
        traced = begin_call("call", {})
        assert traced is not None
        with spans.leaf("db"), spans.section("part"), spans.shared("all", [here()]):
            pass
        trace = trace_id()
        assert not trace_id(recorded=True)
        traced.end("call", {})
        return trace

    # Log lines name it all the same.
    assert asyncio.run(main()) == f"{1:032x}"
    assert tracer.names() == ["call"]


def test_what_would_be_too_many_is_counted(tracer: Recorder) -> None:
    async def main() -> None:
        traced = begin_call("call", {})
        assert traced is not None
        for _ in range(MOST_SPANS + 7):
            with spans.section("item"), spans.leaf("inside"):
                pass
        traced.end("call", {})

    asyncio.run(main())
    assert len(tracer.made) == MOST_SPANS + 1
    left_out = MOST_SPANS // 2 + 7
    assert tracer.made[0].attributes["resight.spans_left_out"] == left_out
    # An item that has no span has nothing below it either, not even below the call.
    assert {made.parent.name for made in tracer.made if made.parent} == {"call", "item"}


def test_shared_work_is_linked_and_stays_apart(tracer: Recorder) -> None:
    async def main() -> None:
        traced = begin_call("call", {})
        assert traced is not None
        place = here()
        with spans.shared("store", [place, None]), spans.leaf("db"):
            pass
        with spans.leaf("after"):
            pass
        traced.end("call", {})

    asyncio.run(main())
    call, store, db, after = tracer.made
    assert (store.parent, store.links) == (None, [call])
    assert (db.parent, after.parent) == (store, call)


def test_a_failure_tells_its_kind_and_no_message(tracer: Recorder) -> None:
    async def main() -> None:
        traced = begin_call("call", {})
        assert traced is not None
        with pytest.raises(ValueError, match="secret"), stage("db"):
            raise ValueError("secret")
        traced.end("call", {}, failed="INTERNAL")

    asyncio.run(main())
    assert [made.failed for made in tracer.made] == ["INTERNAL", "ValueError"]
    assert "secret" not in str([made.attributes for made in tracer.made])
