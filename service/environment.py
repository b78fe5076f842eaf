"""What the environment says: which names are settings, and the files that ``_FILE`` twins name."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from resight.client import caller, tls
from resight.errors import InvalidArgument

__all__ = [
    "DELIMITER",
    "PREFIX",
    "FileTwinSource",
    "name_faults",
    "refuse_unknown_names",
    "unread_names",
]

PREFIX = "RESIGHT_"
_COMMANDS = "resight.commands"
DELIMITER = "__"
_CLIENTS = frozenset({
    caller.API_KEY, caller.API_KEY_FILE, caller.PURPOSE,
    tls.CA_FILE, tls.CLIENT_CERT_FILE, tls.CLIENT_KEY_FILE, tls.CLIENT_TLS,
})  # fmt: skip
# Kubernetes tells pods of a Service named resight: RESIGHT_PORT=tcp://…, RESIGHT_PORT_7443_TCP_….
_LINKS = re.compile(r"(service_(host|port)|port_\d+_(tcp|udp|sctp))(_[a-z0-9_]+)?")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


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
    """What pydantic-settings passes over: sections and keys in the environment that are none.

    Without ``__`` a name may be meant for others: the command line reads the twins of its options
    there (``RESIGHT_SERVE_…``), clients their own. So of these such are refused as are the key of
    a section, or resemble a setting; what is left, ``unread_names`` tells.
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
            found = _of_section(name, section, key, keys)
        if found:
            yield InvalidArgument(found, field=name)


def unread_names(settings: type[BaseSettings]) -> list[str]:
    """Names of ours in the environment that are no fault and that nothing of resight reads."""
    own = {"_".join(path) for path in _paths(settings) if len(path) == 1}
    return [
        name
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX)
        and DELIMITER not in name
        and not _is_others(name)
        and name.upper().removeprefix(PREFIX).lower().removesuffix("_file") not in own
    ]


def _is_others(name: str) -> bool:
    """Whether it is a client's, the twin of an option, or Kubernetes' about a Service."""
    found = name.upper().removeprefix(PREFIX).lower()
    return (
        name.upper() in _CLIENTS
        or _LINKS.fullmatch(found) is not None
        or (found == "port" and _LINK_VALUE.match(os.environ[name]) is not None)
        or any(found.startswith(f"{start}_") for start in _others_starts())
        or found in _twins()
    )


@cache
def _others_starts() -> frozenset[str]:
    """Of commands that are not ours to import, which may need torch."""
    return frozenset(
        point.name for point in entry_points(group=_COMMANDS) if not _is_own(point.value)
    )


@cache
def _twins() -> frozenset[str]:
    """Of the options of the service's own commands."""
    return frozenset(
        twin
        for point in entry_points(group=_COMMANDS)
        if _is_own(point.value)
        for twin in _options(typer.main.get_command(point.load()), point.name)
    )


def _is_own(target: str) -> bool:
    return target.startswith("service.")


def _options(command: Any, path: str) -> Iterator[str]:
    for option in command.params:
        yield f"{path}_{option.name}".replace("-", "_")
    for name, inner in getattr(command, "commands", {}).items():
        yield from _options(inner, f"{path}_{name}")


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
    suffix = "" if bare == found else "_FILE"
    if _is_others(name):
        return ""
    for key in (found, bare):
        if homes := [section for section, choices in keys.items() if key in choices]:
            meant = _full_names(homes, found)
            return f"{name}: no such setting; did you mean {meant}?"
    close = difflib.get_close_matches(bare, own, n=1, cutoff=0.85)
    if not close:
        return ""
    return f"{name}: no such setting; did you mean {PREFIX}{close[0].upper()}{suffix}?"


def _of_key(name: str, section: str, key: str, choices: set[str]) -> str:
    if key in choices or key.removesuffix("_file") in choices:
        return ""
    return f"{name}: no such setting; {section} knows {', '.join(sorted(choices))}"


def _of_section(name: str, section: str, key: str, keys: dict[str, set[str]]) -> str:
    homes = [home for home, choices in keys.items() if key in choices]
    close = difflib.get_close_matches(section, keys, n=1, cutoff=0.7)
    if close and (close[0] in homes or not homes):
        meant = f"did you mean {PREFIX}{close[0].upper()}{DELIMITER}…?"
    elif homes:
        meant = f"did you mean {_full_names(homes, key)}?"
    else:
        meant = f"there are {', '.join(sorted(keys))}"
    return f"{name}: no such section; {meant}"


def _full_names(sections: list[str], key: str) -> str:
    return " or ".join(f"{PREFIX}{section.upper()}{DELIMITER}{key.upper()}" for section in sections)
