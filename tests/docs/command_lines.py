"""The ``resight`` command lines of a page, and whether the real command line would take them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from pydantic import TypeAdapter, ValidationError

from resight.cli import app
from tests.docs.pages import ROOT, blocks, spans

__all__ = ["CommandLine", "command_lines", "environment_twins", "mistake"]

_SHELLS = frozenset({"bash", "sh", "console"})
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
# What stands for a value of the reader's.
_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_.:/-]*|.*[$<…*].*", re.DOTALL)
_BEFORE = frozenset({"exec", "nice", "nohup", "sudo", "time", "timeout", "env", "xargs", "flock"})


@dataclass(frozen=True)
class CommandLine:
    """Words after ``resight``; ``whole`` when it can be typed as it stands, else it may be the name
    of a command with what is special about it, or its synopsis.
    """

    page: Path
    line: int
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: resight {' '.join(self.words)}"


def command_lines(page: Path) -> Iterator[CommandLine]:
    """All of a page: of its fences and of its running text."""
    for block in blocks(page):
        if block.language == "console":
            for command in block.commands():
                for _, words in _resight_words(command.text):
                    yield CommandLine(page, command.line, words, whole=True)
        elif block.language in _SHELLS or not block.language:
            whole = block.language in _SHELLS
            text = block.text if whole else _without_choices(block.text)
            for offset, words in _resight_words(text):
                yield CommandLine(page, block.line + offset, words, whole)
    for line, span in spans(page):
        text = span.strip()
        if text == "resight" or not re.match(r"(?:[A-Z_]+=\S+ )*resight ", text):
            continue
        for _, words in _resight_words(_without_choices(text)):
            yield CommandLine(page, line, words, whole=False)


def mistake(command_line: CommandLine) -> str | None:
    """Why the real command line would not take it, or None. Nothing is run, files may miss."""
    words = [word for word in command_line.words if word not in ("…", "...")]
    root: Any = typer.main.get_command(app)
    context = root.context_class(root, info_name="resight")
    command: Any = root
    if words[:1] in (["--help"], ["-h"], ["--version"]):
        return None
    while hasattr(command, "resolve_command"):
        if not words or words[0].startswith("-"):
            return "a group of commands without one" if command_line.whole else None
        try:
            name, found, words = command.resolve_command(context, words)
        except Exception as error:  # what the library raises is private to it
            return str(getattr(error, "message", error))
        if found is None:
            return f"no such command: {name}"
        command, context = found, found.context_class(found, info_name=name, parent=context)
    if {"--help", "-h"} & set(words):
        return None
    try:
        values, left, _ = command.make_parser(context).parse_args(list(words))
    except Exception as error:
        return str(getattr(error, "message", error))
    if left:
        return f"too many arguments: {' '.join(left)}"
    for parameter in command.get_params(context):
        value = values.get(parameter.name)
        if value is None or value == ():
            if parameter.required and command_line.whole and not _from_environment(parameter):
                return f"{parameter.opts[0]} is missing"
            continue
        for each in value if isinstance(value, tuple | list) else [value]:
            if isinstance(each, str) and not _PLACEHOLDER.fullmatch(each):
                try:
                    _typed(parameter, each)
                except ValidationError as error:
                    return f"{parameter.opts[0]}: {error.errors()[0]['msg']}"
    return None


def environment_twins() -> frozenset[str]:
    """The variables that options of all commands are read from."""
    root: Any = typer.main.get_command(app)
    found: set[str] = set()

    def walk(command: Any, context: Any, prefix: str) -> None:
        for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
            _, child, _ = command.resolve_command(context, [name])
            below = child.context_class(child, info_name=name, parent=context)
            walk(child, below, f"{prefix}_{name}".upper().replace("-", "_"))
        for parameter in command.params:
            found.add(f"{prefix}_{parameter.name}".upper())
            named = parameter.envvar
            found.update([named] if isinstance(named, str) else named or ())

    walk(root, root.context_class(root, info_name="resight"), "RESIGHT")
    return frozenset(found)


def _from_environment(parameter: Any) -> bool:
    return bool(parameter.envvar)


def _typed(parameter: Any, value: str) -> None:
    """Numbers and choices; whether a file is there is not known before the page is followed."""
    kind = parameter.type_descriptor.annotation
    inner = get_args(kind)
    if get_origin(kind) in (list, tuple):
        kind = inner[0]
    elif inner:
        kind = next(each for each in inner if each is not type(None))
    if kind in (int, float) or (isinstance(kind, type) and issubclass(kind, Enum)):
        TypeAdapter(kind).validate_python(value)


def _resight_words(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The line, from 0, and the words after ``resight`` of every such command in a script."""
    here_document = ""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        first, line = number, lines[number]
        number += 1
        if here_document:
            here_document = "" if line.strip() == here_document else here_document
            continue
        while line.endswith("\\") and number < len(lines):
            line = line[:-1] + " " + lines[number].strip()
            number += 1
        opened = re.search(r"<<-?\s*['\"]?(\w+)['\"]?", line)
        here_document = opened[1] if opened else ""
        for words in _simple_commands(line):
            found = _after_resight(words)
            if found is not None:
                yield first, tuple(found)


def _simple_commands(line: str) -> Iterator[list[str]]:
    line = re.sub(r"(?<=\s)\d(?=[<>])", "", line)
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|()<>")
    lexer.whitespace_split = True
    try:
        tokens = list(lexer)
    except ValueError:
        # A quotation over several lines: none of ours has a command behind it.
        tokens = line.split("#")[0].split()
    words: list[str] = []
    skipping = False
    for token in tokens:
        if set(token) <= set(";&|()") and token:
            yield words
            words = []
        elif token and set(token) <= set("<>&"):
            skipping = True
        elif skipping:
            skipping = False
        else:
            words.append(token)
    yield words


def _after_resight(words: list[str]) -> list[str] | None:
    """What follows ``resight`` as a command: at the start, or after programs that start others and
    their arguments (``timeout 5h``, a line of cron).
    """
    rest = list(words)
    while rest and _ASSIGNMENT.match(rest[0]):
        rest.pop(0)
    if rest and rest[0].rsplit("/", 1)[-1] == "resight" and rest[1:]:
        return rest[1:]
    starts = bool(rest) and (rest[0] in _BEFORE or re.fullmatch(r"[\d*/,-]+", rest[0]) is not None)
    at = [i for i, word in enumerate(rest) if word.rsplit("/", 1)[-1] == "resight"]
    return rest[at[-1] + 1 :] if starts and at else None


def _without_choices(text: str) -> str:
    """A synopsis as something that can be typed: everything that may be left out is there, and of
    alternatives the first.
    """
    text = re.sub(r"\[([^\[\]|]*)\|[^\[\]]*\]", r"\1", text)
    text = re.sub(r"(\w)/(?:\w+/)*\w+(?=[ `]|$)", r"\1", text) if text.count("\n") == 0 else text
    return re.sub(r"[\[\]]", " ", text)
