"""The operator's key: which are refused at start, and that none is shown."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

import pytest

from resight.errors import InvalidArgument
from service.access.bootstrap import bootstrap_digest
from service.access.key_text import digest_of


@pytest.mark.parametrize("make", [secrets.token_hex, secrets.token_urlsafe])
def test_a_random_key_is_taken(make: object, tmp_path: Path) -> None:
    for number in range(200):
        file = tmp_path / str(number)
        text = make(32)  # type: ignore[operator]
        file.write_text(f"{text}\n")
        file.chmod(0o600)
        assert bootstrap_digest(file) == digest_of(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "short", "a" * 31, "a" * 40, "0123" * 10, "changeme-changeme-changeme-0123456789",
        "please-replace-this-key-with-your-own-1", "x" * 600, "PASSWORD0123456789abcdefghijklmnop",
        "two words of a key 0123456789abcdefghij", "kéy0123456789abcdefghijklmnopqrstuvwxyz",
    ],
)  # fmt: skip
def test_a_placeholder_or_a_short_one_is_not(text: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidArgument) as refused:
        bootstrap_digest(file)
    assert refused.value.field == "access.bootstrap_key_file"
    assert "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE" in refused.value.message
    assert "\n" not in refused.value.message
    assert len(text) < 6 or text not in refused.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        bootstrap_digest(tmp_path / "nothing")


def test_a_file_that_everybody_reads_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "key"
    text = secrets.token_hex(32)
    file.write_text(text)
    file.chmod(0o600)
    with caplog.at_level(logging.WARNING):
        bootstrap_digest(file)
        assert not caplog.records
        file.chmod(0o644)
        bootstrap_digest(file)
    (record,) = caplog.records
    assert "mode 0400" in record.getMessage()
    assert text not in record.getMessage()
