"""The body of an entry: what is no text or a credential is not in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from service.access.key_text import new_key_id, new_text
from service.audit.entry import MAX_BODY, Entry, columns_of

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def said(**facts: Any) -> Any:
    body = Entry("SearchService/Search", "key:a", "default", facts).body(NOW)
    assert columns_of(body)["principal"] == "key:a"
    return json.loads(body)


@pytest.mark.parametrize(
    "credential",
    [new_text(new_key_id()), "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlLW9mLWl0"],
    ids=["key", "token"],
)
def test_a_credential_is_not_written_wherever_it_was(credential: str) -> None:
    found = said(
        purpose=f"with {credential}",
        notes={"cameras": ["door", credential], credential: 1, "reason": credential},
    )
    assert credential[-12:] not in json.dumps(found)
    assert found["purpose"] == "with (credential)"
    assert found["notes"]["cameras"][1] == "(credential)"


def test_what_only_resembles_one_is_written() -> None:
    noted = {"cameras": ["rsk_1", "eyJ.a", "rsk_0123456789abcdef_"], "key_id": "0123456789abcdef"}
    assert said(notes=noted)["notes"] == noted


def test_a_body_that_is_too_long_loses_its_notes_and_says_so() -> None:
    found = said(outcome="OK", notes={"text": "x" * MAX_BODY})
    assert (found["notes"], found["notes_left_out"], found["outcome"]) == ({}, True, "OK")
