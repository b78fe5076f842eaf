"""``resight config show``: the settings a service started here would have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr

from resight.console import emit
from service.environment import DELIMITER, PREFIX
from service.settings import ServiceSettings, load_settings

__all__ = ["app"]

app = typer.Typer(help="Show the effective settings.", no_args_is_help=True)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@]*@")
_MASK = "***"


@app.callback()
def config() -> None:
    """Show the effective settings."""


@app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print every setting with its environment name; `*` marks those that are not the default."""
    settings = load_settings()
    rows = [
        {
            "setting": ".".join(path),
            "environment": PREFIX + DELIMITER.join(path).upper(),
            "value": _shown(value),
            "is_default": value == default,
        }
        for path, value, default in _leaves(settings)
    ]
    width = max(len(str(row["environment"])) for row in rows)
    text = "\n".join(
        f"{' ' if row['is_default'] else '*'} {row['environment']:<{width}}  {row['value']}"
        for row in rows
    )
    emit({"settings": rows}, as_json=as_json, text=text)


def _leaves(settings: ServiceSettings) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Path, value and default of every setting."""
    for name, field in ServiceSettings.model_fields.items():
        value, default = getattr(settings, name), field.default
        if not isinstance(value, BaseModel):
            yield (name,), value, default
            continue
        for key in type(value).model_fields:
            yield (name, key), getattr(value, key), getattr(default, key)


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return _MASK
    if value is None or isinstance(value, bool | int | float):
        return value
    return _PASSWORD_IN_URL.sub(f"{_MASK}@", str(value))
