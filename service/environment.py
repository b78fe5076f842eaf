"""What the environment says: which names are settings, and the files that ``_FILE`` twins name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from resight.errors import InvalidArgument

__all__ = ["DELIMITER", "PREFIX", "FileTwinSource", "name_faults", "refuse_unknown_names"]

PREFIX = "RESIGHT_"
DELIMITER = "__"


class FileTwinSource(PydanticBaseSettingsSource):
    """Values read from the files that ``RESIGHT_<KEY>_FILE`` names."""

    def get_field_value(
        self,
        field: Any,  # noqa: ARG002
        field_name: str,
    ) -> tuple[Any, str, bool]:
        """Unused: the whole tree is read at once by ``__call__``."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        known = {
            "_".join(("__".join(path), "file")).upper(): path for path in _paths(self.settings_cls)
        }
        for name, location in sorted(os.environ.items()):
            path = known.get(name.upper().removeprefix(PREFIX))
            if not name.upper().startswith(PREFIX) or path is None:
                continue
            target = found
            for part in path[:-1]:
                target = target.setdefault(part, {})
            target[path[-1]] = _read_secret(name, location)
        return found


def _read_secret(name: str, location: str) -> str:
    try:
        text = Path(location).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{name}={location}: cannot read the file ({error}); correct the path or its rights",
            field=name,
        ) from error
    if not text:
        raise InvalidArgument(
            f"{name}={location}: the file is empty; write the value into it", field=name
        )
    return text


def _paths(settings: type[BaseSettings]) -> Iterator[tuple[str, ...]]:
    """The path of every leaf of the tree."""
    for name, field in settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from ((name, key) for key in section.model_fields)
        else:
            yield (name,)


def name_faults(settings: type[BaseSettings]) -> Iterator[InvalidArgument]:
    """What pydantic-settings passes over: misspelt sections and keys in the environment.

    Nothing says of a name without ``__`` that it is meant for the service: the command line reads
    the twins of its options there (``RESIGHT_SERVE_…``), clients their own. So of these only such
    are refused as resemble a setting, or are one with a single underscore, and sections that
    resemble none of ours are left alone as well.
    """
    keys: dict[str, set[str]] = {}
    own: set[str] = set()
    for path in _paths(settings):
        if len(path) == 2:
            keys.setdefault(path[0], set()).add(path[1])
        else:
            own.add(path[0])
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX):
            continue
        section, delimiter, key = upper.removeprefix(PREFIX).lower().partition(DELIMITER)
        if not delimiter:
            found = _of_one_part(name, section, own, keys)
        elif section in keys:
            found = _of_key(name, section, key, keys[section])
        else:
            found = _of_section(name, section, keys)
        if found:
            yield InvalidArgument(found, field=name)


def refuse_unknown_names(settings: type[BaseSettings]) -> None:
    """Raise the first fault in a name.

    Raises:
        InvalidArgument: there is one.
    """
    for fault in name_faults(settings):
        raise fault


def _of_one_part(name: str, found: str, own: set[str], keys: dict[str, set[str]]) -> str:
    if found in own or found in keys or found.removesuffix("_file") in own:
        return ""
    for section, choices in keys.items():
        key = found.removeprefix(f"{section}_")
        if key != found and (key in choices or key.removesuffix("_file") in choices):
            return (
                f"{name}: no such setting; two underscores part section and key: "
                f"{PREFIX}{section.upper()}{DELIMITER}{key.upper()}"
            )
    bare = found.removesuffix("_file")
    close = difflib.get_close_matches(bare, own, n=1, cutoff=0.85)
    if not close:
        return ""
    suffix = "" if bare == found else "_FILE"
    return f"{name}: no such setting; did you mean {PREFIX}{close[0].upper()}{suffix}?"


def _of_key(name: str, section: str, key: str, choices: set[str]) -> str:
    if key in choices or key.removesuffix("_file") in choices:
        return ""
    return f"{name}: no such setting; {section} knows {', '.join(sorted(choices))}"


def _of_section(name: str, section: str, keys: dict[str, set[str]]) -> str:
    close = difflib.get_close_matches(section, keys, n=1, cutoff=0.7)
    if not close:
        return ""
    return f"{name}: no such section; did you mean {PREFIX}{close[0].upper()}{DELIMITER}…?"
