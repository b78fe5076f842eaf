"""What the pages name is there: commands and their options, settings, files, headings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs import references
from tests.docs.command_lines import command_lines, mistake
from tests.docs.pages import pages

Check = Callable[[Path], Iterator[str]]


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_every_resight_command_parses(page: Path) -> None:
    found = ((line, mistake(line)) for line in command_lines(page))
    assert [f"{line}: {wrong}" for line, wrong in found if wrong] == []


@pytest.mark.parametrize("check", [getattr(references, name) for name in references.__all__])
def test_what_a_page_refers_to_is_there(check: Check) -> None:
    assert [wrong for page in pages() for wrong in check(page)] == []
