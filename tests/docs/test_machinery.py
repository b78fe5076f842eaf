"""The tests of the pages can fail: each kind of mistake that a page may hold is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs import pages as pages_module
from tests.docs.command_lines import CommandLine, command_lines, mistake
from tests.docs.pages import Block, anchors, blocks
from tests.docs.references import (
    dead_links,
    missing_files,
    setting_defaults,
    unknown_settings,
    unknown_variables,
)
from tests.docs.shell import PageShell, differs


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``page(text)``: a page of that text."""
    for module in ("pages", "references", "command_lines"):
        monkeypatch.setattr(f"tests.docs.{module}.ROOT", tmp_path)

    def make(text: str) -> Path:
        path = tmp_path / f"page{len(list(tmp_path.iterdir()))}.md"
        path.write_text(text)
        return path

    return make


def wrong(words: str, *, whole: bool = True) -> str | None:
    return mistake(CommandLine(pages_module.DOCS / "x.md", 1, tuple(words.split()), whole))


def test_blocks_carry_language_line_and_comments(page: Callable[[str], Path]) -> None:
    found = blocks(
        page(
            "text\n<!-- not run: needs a GPU -->\n\n```bash\nnvidia-smi\n```\n"
            "<!-- exits 3 -->\n```console\n$ a \\\n> b\nout\n\n$ c\n```\n<!-- exits 1 -->\nwords\n"
            "```sh\nplain\n```\n"
        )
    )
    first, second, third = found
    assert (first.line, first.language, first.not_run, first.is_run) == (
        5,
        "bash",
        "needs a GPU",
        False,
    )
    assert second.exit_code == 3
    assert [(each.text, each.line, each.output) for each in second.commands()] == [
        ("a \\\nb", 9, ("out", "")), ("c", 13, ()),
    ]  # fmt: skip
    assert (third.exit_code, third.is_run) == (0, False)
    with pytest.raises(ValueError, match="does not end"):
        blocks(page("```bash\nls\n"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("serch query.jpg", "serch"),
        ("search query.jpg --top_k 5", "--top_k"),
        ("search query.jpg --top-k many", "--top-k"),
        ("search query.jpg --fusion mode", "--fusion"),
        ("search", "missing"),
        ("gallery", "group"),
        ("gallery stats default", "too many"),
        ("gallery verfy", "verfy"),
        ("gallery restore", "missing"),
    ],
)
def test_a_command_that_would_not_parse_is_found(words: str, told: str) -> None:
    assert told in (wrong(words) or "nothing wrong")


def test_a_command_with_names_for_values_parses() -> None:
    assert wrong("search QUERY.jpg --top-k N --fusion max") is None
    assert wrong("gallery verify --all-images --sample N") is None
    assert wrong("models promote $MODEL") is None
    assert wrong("adapt run", whole=False) is None
    assert "--output is missing" in (wrong("adapt run --crops CROPS") or "")


def test_commands_are_found_wherever_they_stand(page: Callable[[str], Path]) -> None:
    found = command_lines(
        page(
            "Ask `resight gallery stats`, `resight gallery verify [--all-images | --sample N]`\n\n"
            "```bash\nA=1 .venv/bin/resight db upgrade && resight config show | grep x\n"
            "# resight is a name\nresight search a.jpg \\\n    --top-k 5 > out.txt 2>&1\n"
            "cat <<EOF\nresight nonsense\nEOF\nresight keys\n```\n\n"
            "```\n15 1 * * *  resight  timeout 5h resight adapt nightly --live B --state S\n```\n"
            "```console\n$ resight cameras list\nresight no command\n```\n"
        )
    )
    assert [(each.line, " ".join(each.words)) for each in found] == [
        (4, "db upgrade"), (4, "config show"), (6, "search a.jpg --top-k 5"), (11, "keys"),
        (15, "adapt nightly --live B --state S"), (18, "cameras list"),
        (1, "gallery stats"), (1, "gallery verify --all-images"),
    ]  # fmt: skip


def test_references_to_nothing_are_found(page: Callable[[str], Path]) -> None:
    path = page(
        "# A heading, with `code` & more\n\n"
        "See [here](#a-heading-with-code--more), [there](#gone), "
        "[away](gone.md)\nand [out](https://example.org/x). `tests/gone.py`, `tests/*.py`.\n\n"
        "Set `limits.max_top_k` (1,000), `limits.max_top_n`, `models.verify_sample`\n(63) and "
        "`models.md`; RESIGHT_GRPC__PORT, RESIGHT_GRPC__PROT, RESIGHT_DATABASE_URL_FILE,\n"
        "RESIGHT_SEARCH_TOP_K, RESIGHT_SEARCH_TOP_N.\n"
    )
    assert anchors(path) == {"a-heading-with-code--more"}
    assert [each.split(": ")[1] for each in dead_links(path)] == ["#gone", "gone.md"]
    assert [each.split(": ")[1] for each in missing_files(path)] == ["tests/gone.py"]
    assert [each.split(": ")[1] for each in unknown_settings(path)] == ["limits.max_top_n"]
    assert [each.split(": ")[1] for each in setting_defaults(path)] == [
        "`models.verify_sample` is 64"
    ]
    assert [each.split(": ")[1] for each in unknown_variables(path)] == [
        "RESIGHT_GRPC__PROT", "RESIGHT_SEARCH_TOP_N",
    ]  # fmt: skip


def test_shown_output_is_compared() -> None:
    assert differs("a\n...\nd 1.. end", "a\nb\nc\nd 1.. end\n") is None
    assert differs("a ... c", "a and b and c\n") is None
    assert differs("...", "") is None
    assert differs("a\n...", "b\n")
    assert differs("a", "a\nb\n")
    assert differs("a\nb", "a\n")


def test_blocks_are_run_in_one_terminal(tmp_path: Path) -> None:
    shell = PageShell(tmp_path, {"7443": "12345"})

    def told(text: str, language: str = "bash", *comments: str) -> list[str]:
        return shell.run(Block(pages_module.DOCS / "x.md", 1, language, text, comments))

    assert told("export PLACE=/var/lib/x\nmkdir -p $PLACE\ncd $PLACE") == []
    assert told("$ pwd\n/var/lib/x\n$ echo $PLACE 7443\n/var/lib/x 7443", "console") == []
    assert (tmp_path / "var/lib/x").is_dir()
    assert told("test 7443 = 12345") == [], "the port was replaced"
    assert "exit code 1, not 0" in told("false\ntrue")[0], "a command in the middle failed"
    assert "exit code 1, not 0" in told("false | cat")[0]
    assert "exit code 0, not 3" in told("true", "bash", "exits 3")[0]
    assert told("exit 3", "bash", "exits 3") == []
    assert "--- it prints\nelse" in told("$ echo else\nsomething", "console")[0]
    assert "exit code 1" in told("$ false\n$ echo on\non", "console")[0]
    assert "RESIGHT_GRPC__PROT" in told("$ RESIGHT_GRPC__PROT=1 resight serve\n", "console")[0]
