"""Log lines: what is in each, and that none is left out in silence."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import pytest

from service import call, log_lines
from service.domain.principal import LOCAL
from service.log_lines import JsonLines, LimitedLines


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Log:
    """A logger that writes to memory."""

    def __init__(self, most: int = 3) -> None:
        self.stream = io.StringIO()
        self.time = Time()
        self.handler = LimitedLines(self.stream, most=most, window=60, clock=self.time)
        self.handler.setFormatter(JsonLines())
        self.logger = logging.getLogger("service.test_log_lines")
        self.logger.setLevel(logging.DEBUG)
        self.logger.propagate = False
        self.logger.handlers = [self.handler]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.logger.handlers = []


def test_a_line_names_the_call_that_is_being_answered(log: Log) -> None:
    log.logger.info("before")

    def answering() -> None:
        now = call.Call("grpc", "SearchService/Search", principal=LOCAL)
        call.begin(now)
        call.enter_gallery("site")
        log.logger.warning("during %d", 7)

    copy_context().run(answering)
    log.logger.info("after")
    before, during, after = log.lines
    assert set(before) == {"time", "level", "logger", "message"} == set(after)
    assert during["message"] == "during 7"
    assert during["level"] == "warning"
    assert during["method"] == "SearchService/Search"
    assert during["principal"] == LOCAL.name
    assert during["gallery"] == "site"
    assert len(during["request_id"]) == 32


def test_lines_of_one_statement_are_limited_and_the_rest_told(log: Log) -> None:
    def complain(number: int) -> None:
        log.logger.handle(
            logging.makeLogRecord({
                "name": log.logger.name, "levelno": logging.WARNING, "levelname": "WARNING",
                "msg": "disk %d is slow", "args": (number,), "created": 1000.0 + number,
                "pathname": __file__, "lineno": 1,
            })
        )  # fmt: skip

    for number in range(10):
        complain(number)
    log.logger.warning("another")
    assert [line["message"] for line in log.lines] == [
        "disk 0 is slow", "disk 1 is slow", "disk 2 is slow", "another",
    ]  # fmt: skip
    log.time.now = 61.0
    log.logger.info("later")
    # Whoever reads it later must see that the disk is not slow now.
    assert [line["message"] for line in log.lines[4:]] == [
        "7 more lines like this within 60 s were left out, the last at "
        "1970-01-01T00:16:49.000+00:00: disk 0 is slow",
        "later",
    ]
    assert log.lines[4]["level"] == "warning"
    complain(11)
    assert log.lines[-1]["message"] == "disk 11 is slow"


def test_what_was_left_out_is_told_at_the_end(log: Log) -> None:
    for _ in range(5):
        log.logger.error("again")
    log.handler.close()
    assert len(log.lines) == 4
    assert log.lines[-1]["message"].startswith("2 more lines like this")


def test_a_count_is_of_no_call(log: Log) -> None:
    for _ in range(5):
        log.logger.error("again")
    log.time.now = 100.0

    def answering() -> None:
        call.begin(call.Call("grpc", "SearchService/Search"))
        log.logger.info("mine")

    copy_context().run(answering)
    count, mine = log.lines[-2:]
    assert "request_id" in mine
    assert "request_id" not in count


def test_debugging_is_not_limited(log: Log) -> None:
    for _ in range(50):
        log.logger.debug("step")
    assert len(log.lines) == 50


def test_a_line_has_an_end(log: Log) -> None:
    log.logger.error("x" * 1_000_000)
    assert len(log.stream.getvalue()) < 20_000


def test_libraries_never_log_for_debugging() -> None:
    """What they say then may repeat what they were given: bytes of images, headers."""
    from service.access_settings import LogSettings

    root = logging.getLogger()
    names = ("service", "resight", "alembic", "faiss", "uvicorn")
    before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
    handlers, level = root.handlers[:], root.level
    try:
        log_lines.install(LogSettings(level="debug"))
        assert logging.getLogger("service.runtime").isEnabledFor(logging.DEBUG)
        for library in ("PIL", "botocore", "python_multipart", "sqlalchemy", "urllib3", "asyncio"):
            assert not logging.getLogger(library).isEnabledFor(logging.DEBUG)
        log_lines.install(LogSettings(level="error"))
        for name in ("service.runtime", "urllib3", "uvicorn.error"):
            assert not logging.getLogger(name).isEnabledFor(logging.WARNING)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(capture=False)
        for logger, old in before:
            logger.setLevel(old)
