"""Faults in settings, as lines that name the setting, its environment name and the fix."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from resight.errors import InvalidArgument
from service.environment import DELIMITER, PREFIX

__all__ = ["faults_of", "placeholder_in", "unreadable"]

_FIELD = re.compile(r'field "(\w+)"')
# What examples and charts have in place of a secret.
_PLACEHOLDER = re.compile(
    r"(?i)change[-_ ]?me|replace[-_ ]?me|placeholder|<[^>]*>|\$\{[^}]*\}|x{4,}"
)


def faults_of(error: ValidationError) -> list[InvalidArgument]:
    """One for each value that is wrong."""
    return [_fault(found) for found in error.errors()]


def _fault(found: Mapping[str, Any]) -> InvalidArgument:
    path = [str(part) for part in found["loc"]]
    text = str(found["msg"]).removeprefix("Value error, ")
    if not path:
        return InvalidArgument(text, field="settings")
    if found["type"] == "extra_forbidden":
        text = "no such setting; remove it or correct its name"
    name = ".".join(path)
    variable = f"{PREFIX}{DELIMITER.join(path).upper()}"
    if found["type"] == "model_type":
        text = f"is a section; set its keys one by one, as {variable}{DELIMITER}…"
    return InvalidArgument(f"setting {name} ({variable}): {text}", field=name)


def unreadable(error: SettingsError) -> InvalidArgument:
    """A section that is given as one value, which is no JSON."""
    found = _FIELD.search(str(error))
    name = found[1] if found else "settings"
    variable = f"{PREFIX}{name.upper()}"
    return InvalidArgument(
        f"setting {name} ({variable}): no JSON; set its keys one by one, as {variable}{DELIMITER}…",
        field=name,
    )


def placeholder_in(secret: str) -> bool:
    """Whether it stands where a secret should."""
    return _PLACEHOLDER.fullmatch(secret.strip()) is not None
