"""What a page refers to: other pages and their headings, files of this repository, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from service.environment import DELIMITER, PREFIX
from service.settings import ServiceSettings
from tests.docs.command_lines import environment_twins
from tests.docs.pages import ROOT, anchors, blocks, prose, spans

__all__ = [
    "dead_links", "missing_files", "setting_defaults", "unknown_settings", "unknown_variables",
]  # fmt: skip

_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_FILE_ENDINGS = re.compile(
    "cpp|c|crt|csv|html|jsonl?|js|key|ledger|list|md|npy|onnx|pack|parquet|pem|pid|plan|png|prom|proto|py"
    "|sh|so|sqlite|svg|tar|toml|txt|ya?ml"
)
_KEPT_PLACES = ("adapt", "bench", "deploy", "docs", "proto", "requirements", "resight", "service",
                "tests", "tools")  # fmt: skip
# Read by tests and tools, not by the programs.
_ELSEWHERE = ("tests", "bench", "tools", "deploy", "resight", "service", "adapt", "docs/../.ci")


def dead_links(page: Path) -> Iterator[str]:
    """Relative links to nothing: no file, or no such heading in it."""
    for number, line in _joined(page):
        for target in _LINK.findall(line):
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue
            path, _, anchor = target.partition("#")
            found = (page.parent / path).resolve() if path else page
            where = f"{page.relative_to(ROOT)}:{number}: {target}"
            if not found.exists():
                yield f"{where}: no such file"
            elif anchor and found.suffix == ".md" and anchor not in anchors(found):
                yield f"{where}: no such heading"


def missing_files(page: Path) -> Iterator[str]:
    """Files of this repository that a span of code or a command names and that are not there."""
    named = [(line, span) for line, span in spans(page)]
    for block in blocks(page):
        named += [
            (block.line + offset, word)
            for offset, line in enumerate(block.text.splitlines())
            for word in re.findall(r"[\w./*{}$<>-]+", line)
        ]
    for line, span in named:
        path = span.split("#")[0].split("::")[0].rstrip("/:,.")
        top, _, rest = path.removeprefix("./").partition("/")
        if top not in _KEPT_PLACES or not rest or not re.fullmatch(r"[\w./-]+", path):
            continue
        # `service/commands.py` is meant as a file; `search/second` is not.
        looks_like_one = "." in rest.rsplit("/", 1)[-1] or top in ("deploy", "tests", "docs")
        if looks_like_one and not (ROOT / path).exists():
            yield f"{page.relative_to(ROOT)}:{line}: {path}: no such file"


def unknown_variables(page: Path) -> Iterator[str]:
    """Variables that are no setting, no twin of an option and in no program; but for those of a
    block that is to fail.
    """
    wrong = {
        number
        for block in blocks(page)
        if block.exit_code
        for number in range(block.line, block.line + block.text.count("\n") + 1)
    }
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if number in wrong:
            continue
        for name in re.findall(r"(?<![A-Z_])RESIGHT_[A-Z0-9_]*[A-Z0-9](?!\w|…)", line):
            if name not in _variables() and name not in _read_by_programs(ROOT):
                yield f"{page.relative_to(ROOT)}:{number}: {name}: nothing reads it"


def unknown_settings(page: Path) -> Iterator[str]:
    """Settings in spans of code (``models.fill_block``) that are none; the chart has its own."""
    sections = _sections() if (ROOT / "deploy") not in page.parents else {}
    for line, span in spans(page):
        found = re.match(r"([a-z_]+)\.([a-z_]+)(?=$|[ :=])", span)
        if found is None or found[1] not in sections or _FILE_ENDINGS.fullmatch(found[2]):
            continue
        if found[2] not in sections[found[1]]:
            yield f"{page.relative_to(ROOT)}:{line}: {found[0]}: no such setting"


def setting_defaults(page: Path) -> Iterator[str]:
    """Defaults that a page gives in the form ```section.key` (64)`` and that are others."""
    sections = _sections()
    for number, line in _joined(page):
        for section, key, given in re.findall(
            r"`([a-z_]+)\.([a-z_]+)` \((?:default )?([\d,]*\.?\d+)(?: seconds| a call)?\)", line
        ):
            default = sections.get(section, {}).get(key)
            number_given = float(given.replace(",", ""))
            if isinstance(default, int | float) and float(default) != number_given:
                yield f"{page.relative_to(ROOT)}:{number}: `{section}.{key}` is {default}"


@cache
def _sections() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, each in ServiceSettings.model_fields.items():
        section = each.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            found[name] = {key: value.default for key, value in section.model_fields.items()}
    return found


@cache
def _variables() -> frozenset[str]:
    names = {PREFIX + name.upper() for name in ServiceSettings.model_fields}
    for section, keys in _sections().items():
        names |= {f"{PREFIX}{section}{DELIMITER}{key}".upper() for key in keys}
    return frozenset(names | {f"{name}_FILE" for name in names}) | environment_twins()


@cache
def _read_by_programs(root: Path) -> frozenset[str]:
    found: set[str] = set()
    for place in _ELSEWHERE:
        for path in (root / place).rglob("*"):
            if path.suffix in (".py", ".sh") and path.parent != Path(__file__).parent:
                found |= set(re.findall(r"['\"$]{?(RESIGHT_[A-Z0-9_]+)", path.read_text("utf-8")))
    return frozenset(found)


def _joined(page: Path) -> Iterator[tuple[int, str]]:
    """Paragraphs of running text as one line each, so that what is broken over lines is seen."""
    first, words = 0, list[str]()
    for number, line in [*prose(page), (0, "")]:
        if line.strip():
            first = first if words else number
            words.append(line.strip())
        elif words:
            yield first, " ".join(words)
            words = []
