"""The pages of the documentation, and the fenced blocks on them.

A comment in front of a block says what is special about it:

    <!-- not run: needs a Kubernetes cluster -->     it is only parsed
    <!-- exits 1 -->                                 the last command of it fails, as the page says
    <!-- the service was stopped -->                 what the page asks for in words
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["DOCS", "ROOT", "Block", "Command", "anchors", "blocks", "pages", "prose"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Blocks of these languages are run; others are what they look like.
RUN = frozenset({"bash", "console"})

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>```+|~~~+)(?P<language>[\w-]*) *$")
_COMMENT = re.compile(r"^ *<!-- *(?P<text>.*?) *-->$")
_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")


@dataclass(frozen=True)
class Command:
    """A command of a console block, the line it stands in, and what the page shows after it."""

    text: str
    line: int
    output: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its first line of text, and the comments before it."""

    page: Path
    line: int
    language: str
    text: str
    comments: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def not_run(self) -> str | None:
        """Why it cannot run here."""
        for comment in self.comments:
            if comment.startswith("not run:"):
                return comment.removeprefix("not run:").strip()
        return None

    @property
    def is_run(self) -> bool:
        return self.language in RUN and self.not_run is None

    @property
    def exit_code(self) -> int:
        """That the page promises, of the last command."""
        found = [re.fullmatch(r"exits (\d+)", comment) for comment in self.comments]
        return next((int(each[1]) for each in found if each), 0)

    @property
    def service_was_stopped(self) -> bool:
        return "the service was stopped" in self.comments

    def commands(self) -> list[Command]:
        """Of a console block: what stands after each ``$``, with its continuation lines."""
        found: list[tuple[list[str], int, list[str]]] = []
        continued = False
        for number, line in enumerate(self.text.splitlines(), self.line):
            if continued:
                found[-1][0].append(line.removeprefix("> "))
            elif line.startswith("$ "):
                found.append(([line.removeprefix("$ ")], number, []))
            elif found:
                found[-1][2].append(line)
            else:
                raise ValueError(f"{self.page}:{number}: output before the first command")
            continued = line.endswith("\\") and (continued or line.startswith("$ "))
        return [Command("\n".join(text), at, tuple(output)) for text, at, output in found]


@cache
def pages() -> tuple[Path, ...]:
    """Every page for readers; decisions are history and stay as they were written."""
    own = [ROOT / "README.md", *ROOT.glob("[A-Z]*.md"), *(ROOT / "deploy").rglob("*.md")]
    return tuple(sorted({*own, *DOCS.glob("*.md")}))


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The fenced blocks of a page, in order."""
    return tuple(block for kind, block in _parts(page) if kind == "block" and block is not None)


@cache
def prose(page: Path) -> tuple[tuple[int, str], ...]:
    """The numbered lines outside fences."""
    inside = {
        number
        for block in blocks(page)
        for number in range(block.line - 1, block.line + block.text.count("\n") + 1)
    }
    lines = page.read_text(encoding="utf-8").splitlines()
    return tuple((n, line) for n, line in enumerate(lines, 1) if n not in inside)


def spans(page: Path) -> Iterator[tuple[int, str]]:
    """What stands between backticks in running text; a span that is broken over lines counts."""
    numbered = prose(page)
    text = "\n".join(line for _, line in numbered)
    starts = [0]
    for _, line in numbered:
        starts.append(starts[-1] + len(line) + 1)
    for paragraph in re.finditer(r"(?:[^\n]+\n?)+", text):
        for found in _SPAN.finditer(paragraph[0].replace("\n", " ")):
            offset = paragraph.start() + found.start()
            index = next(i for i, start in enumerate(starts) if start > offset) - 1
            yield numbered[index][0], found[2].strip()


def anchors(page: Path) -> frozenset[str]:
    """What may stand after ``#`` in a link to the page: headings as forges name them, and ids."""
    found: set[str] = set()
    counts: dict[str, int] = {}
    for _, line in prose(page):
        found |= set(re.findall(r'<a (?:id|name)="([^"]+)"', line))
        heading = re.match(r"#{1,6} +(.*?) *#*$", line)
        if heading is None:
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        again = counts.get(slug, 0)
        counts[slug] = again + 1
        found.add(f"{slug}-{again}" if again else slug)
    return frozenset(found)


def _parts(page: Path) -> Iterator[tuple[str, Block | None]]:
    """Blocks in order; raises where a fence does not end."""
    comments: list[str] = []
    opened: tuple[re.Match[str], int, list[str]] | None = None
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        if opened is not None:
            start, first, text = opened
            if fence and fence["marks"].startswith(start["marks"]) and not fence["language"]:
                body = "\n".join(each.removeprefix(start["indent"]) for each in text)
                yield "block", Block(page, first, start["language"], body, tuple(comments))
                opened, comments = None, []
            else:
                text.append(line)
        elif fence:
            opened = (fence, number + 1, [])
        elif comment := _COMMENT.match(line):
            comments.append(comment["text"])
        elif line.strip():
            comments = []
    if opened is not None:
        raise ValueError(f"{page}:{opened[1]}: a fence that does not end")
