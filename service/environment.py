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

__all__ = ["DELIMITER", "PREFIX", "FileTwinSource", "refuse_unknown_names"]

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
        return Path(location).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"{name}={location}: cannot read the file ({error}); correct the path or its rights",
            field=name,
        ) from error


def _paths(settings: type[BaseSettings]) -> Iterator[tuple[str, ...]]:
    """The path of every leaf of the tree."""
    for name, field in settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from ((name, key) for key in section.model_fields)
        else:
            yield (name,)


def refuse_unknown_names(settings: type[BaseSettings]) -> None:
    """Catch what pydantic-settings passes over: misspelt sections and keys in the environment.

    Names without ``__`` are left alone, because the command line reads its options' twins
    (``RESIGHT_SERVE_…``) from there, and so are sections that resemble none of ours.
    """
    keys: dict[str, set[str]] = {}
    for path in _paths(settings):
        if len(path) == 2:
            keys.setdefault(path[0], set()).add(path[1])
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or DELIMITER not in upper:
            continue
        section, key = upper.removeprefix(PREFIX).lower().split(DELIMITER, 1)
        if section in keys:
            choices = keys[section]
            if key in choices or key.removesuffix("_file") in choices:
                continue
            raise InvalidArgument(
                f"{name}: no such setting; {section} knows {', '.join(sorted(choices))}", field=name
            )
        close = difflib.get_close_matches(section, keys, n=1, cutoff=0.7)
        if close:
            raise InvalidArgument(
                f"{name}: no such section; did you mean {PREFIX}{close[0].upper()}{DELIMITER}…?",
                field=name,
            )
