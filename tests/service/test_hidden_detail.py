"""What the operator reads of an error and callers do not."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy.exc import OperationalError

from resight.errors import ResightError, Unavailable
from service import hidden_detail
from service.catalog.engine import unavailable
from service.hidden_detail import logged
from service.transport.status import problem, rpc_status

WORDS = "connection to server at 10.0.0.7, user fred, failed"


@pytest.fixture(autouse=True)
def forgotten() -> None:
    hidden_detail._said.clear()
    hidden_detail._unsaid.clear()


def test_answers_have_the_message_and_the_log_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    error = unavailable(OperationalError("SELECT 1", {}, Exception(WORDS)))
    assert WORDS in str(error)
    _, headers, body = problem(error, instance="/v1/keys", request_id="r")
    status = rpc_status(error, request_id="r")
    for said in (
        repr(headers),
        repr(body),
        str(status),
        status.SerializeToString().decode("latin1"),
    ):
        assert "10.0.0.7" not in said
        assert "fred" not in said
    assert WORDS in caplog.text
    assert "CATALOG_UNAVAILABLE" in caplog.text


def test_an_outage_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(hidden_detail, "monotonic", lambda: now)
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            logged(Unavailable("away", reason="ONE", detail="here"))
        logged(Unavailable("away", reason="OTHER", detail="there"))
        logged(ResightError("nothing hidden"))
        assert [record.getMessage() for record in caplog.records] == [
            "ONE: away (here)", "OTHER: away (there)",
        ]  # fmt: skip
        now += 1.0
        logged(Unavailable("away", reason="ONE", detail="here"))
        assert caplog.records[-1].getMessage() == "ONE: away (here) (49 more)"
