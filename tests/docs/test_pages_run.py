"""The commands of the documentation are run, page by page, with real services."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.docs.conftest import database_server
from tests.docs.pages import DOCS, ROOT, blocks, pages
from tests.docs.shell import PageShell

# What an operator, a security officer or a privacy officer does by the book.
MUST_RUN = [
    ROOT / "README.md",
    *(DOCS / f"{name}.md" for name in
      ("audit", "metrics", "operations", "privacy", "security", "tracing")),
]  # fmt: skip


def run_blocks(page: Path) -> list[str]:
    return [block.where for block in blocks(page) if block.is_run]


@pytest.mark.parametrize(
    "page", [page for page in pages() if run_blocks(page)], ids=lambda p: p.name
)
def test_the_commands_of_a_page_do_what_it_says(
    page: Path, page_shell: Callable[..., PageShell]
) -> None:
    with ExitStack() as stack:
        uses_database = "@db/" in page.read_text(encoding="utf-8")
        server = stack.enter_context(database_server()) if uses_database else None
        shell = page_shell(server)
        wrong: list[str] = []
        for block in blocks(page):
            if block.is_run and not wrong:
                wrong = shell.run(block)
        assert not wrong, "\n".join(wrong)
        assert not shell.stop_services()


@pytest.mark.parametrize("page", MUST_RUN, ids=lambda p: p.name)
def test_pages_to_be_followed_have_commands_that_run(page: Path) -> None:
    assert page.exists()
    assert run_blocks(page)


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_a_command_that_does_not_run_says_why(page: Path) -> None:
    unknown = [
        f"{block.where}: {comment}"
        for block in blocks(page)
        for comment in block.comments
        if block.language in ("bash", "console")
        and not comment.startswith(("not run: ", "exits "))
        and comment != "the service was stopped"
    ]
    assert not unknown, "a comment that nobody understands"
