"""From preset, file, ``--set`` and options to one validated configuration.

Later layers win: preset of the method < ``--config`` file < ``--set key=value`` < options.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from pydantic import BaseModel, ValidationError

from adapt.training.config import RunConfig
from adapt.training.presets import default_method, preset_values
from resight.errors import InvalidArgument

__all__ = ["default_preset", "known_keys", "parse_assignments", "read_config_file", "resolve"]

_Section = TypeVar("_Section", bound=BaseModel)

_MAX_FILE_BYTES = 2**20
_SECTION_METHODS = {
    "cluster_contrast": "cluster-contrast",
    "spcl": "spcl",
    "calr": "calr",
    "pplr": "pplr",
    "cap": "cap",
}


def resolve(
    *,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Builds the configuration; its ``model_fields_set`` are the settings given, no preset's.

    Args:
        file: YAML, TOML or JSON file of settings.
        assignments: ``key=value`` strings; a method's section is named ``spcl.eps_gap``.
        options: Explicit options; None values are left out.

    Raises:
        InvalidArgument: A key is unknown, or a value is not allowed; names the key.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    layers = [read_config_file(file) if file else {}, parse_assignments(assignments), given]
    merged: dict[str, Any] = {}
    for layer in layers:
        _refuse_unknown(layer)
        _merge(merged, layer)
    preset = str(merged.setdefault("preset", default_preset(merged)))
    method = str(merged.setdefault("method", default_method(preset)))
    _refuse_other_sections(merged, method)
    base = json.loads(json.dumps(preset_values(preset, method)))
    _merge(base, merged)
    try:
        config = RunConfig(**base)
    except ValidationError as error:
        raise _invalid(error) from error
    return _marked(config, merged)


def default_preset(settings: Mapping[str, Any]) -> str:
    """``published`` where ``settings`` mean a CUDA device, else ``fast``."""
    device = str(settings.get("device", "auto"))
    cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    return "published" if cuda else "fast"


def known_keys(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from known_keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Nested settings from ``key=value`` strings; values are read as YAML scalars."""
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator or not key.strip():
            raise InvalidArgument(f"--set {assignment!r}: write key=value", field="set")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidArgument(f"--set {key}: {text!r} is not a value", field=key) from error
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        _refuse_unknown(value)
        _merge(result, value)
    return result


def read_config_file(path: Path) -> dict[str, Any]:
    """Settings from a ``.yaml``/``.yml``, ``.toml`` or ``.json`` file.

    Raises:
        InvalidArgument: The file is missing, too large, malformed, or of another type.
    """
    if not path.is_file():
        raise InvalidArgument(f"--config {path}: there is no such file", field="config")
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise InvalidArgument(f"--config {path}: larger than 1 MiB", field="config")
    parsers: dict[str, Callable[[str], Any]] = {
        ".yaml": yaml.safe_load,
        ".yml": yaml.safe_load,
        ".toml": tomllib.loads,
        ".json": json.loads,
    }
    parse = parsers.get(path.suffix.lower())
    if parse is None:
        raise InvalidArgument(
            f"--config {path}: name the file .yaml, .yml, .toml or .json", field="config"
        )
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"--config {path}: {error}", field="config") from error
    if not isinstance(values, dict):
        raise InvalidArgument(f"--config {path}: expected settings by name", field="config")
    return values


def _merge(target: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value


def _marked(section: _Section, given: Mapping[str, Any]) -> _Section:
    """The same settings, of which those ``given`` count as set."""
    values = {name: getattr(section, name) for name in type(section).model_fields}
    for name, value in values.items():
        if isinstance(value, BaseModel):
            values[name] = _marked(value, given.get(name, {}))
    return type(section).model_construct(_fields_set=set(given), **values)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _refuse_unknown(values: Mapping[str, Any]) -> None:
    known = list(known_keys())
    for key in _flat(values):
        if key in known or any(name.startswith(f"{key}.") for name in known):
            continue
        # A setting may have been given without its section, or with a misspelt one.
        tails = {name.rpartition(".")[2]: name for name in known}
        near = difflib.get_close_matches(key, [*known, *tails], n=3, cutoff=0.6)
        named = list(dict.fromkeys(tails.get(name, name) for name in near))
        hint = f"did you mean {' or '.join(named)}?" if named else "docs/adapt.md lists them all"
        raise InvalidArgument(f"unknown setting {key!r}; {hint}", field=key)


def _refuse_other_sections(merged: Mapping[str, Any], method: str) -> None:
    for section, owner in _SECTION_METHODS.items():
        if merged.get(section) and owner != method:
            key = next(_flat({section: merged[section]}))
            raise InvalidArgument(f"{key} has no effect with method {method}", field=key)


def _invalid(error: ValidationError) -> InvalidArgument:
    faults = [
        (".".join(str(part) for part in fault["loc"]), fault["msg"].removeprefix("Value error, "))
        for fault in error.errors()
    ]
    text = "; ".join(f"{name}: {message}" if name else message for name, message in faults)
    return InvalidArgument(f"settings: {text}", field=faults[0][0])
