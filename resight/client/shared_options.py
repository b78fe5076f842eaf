"""Options that every command with ``--target`` takes, added to all of them at once: how it is let
in. They are read by ``connect``, so that no command has to hand them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.client.caller import API_KEY, API_KEY_FILE, PURPOSE

__all__ = ["add_shared_options", "chosen"]

_chosen: dict[str, Any] = {}


def chosen() -> Mapping[str, Any]:
    """What the command line said, by name of the option; empty outside one."""
    return _chosen


def add_shared_options(command: Any) -> None:
    """Add them to a command that has ``--target``, and to those below a group."""
    for child in getattr(command, "commands", {}).values():
        add_shared_options(child)
    names = {parameter.name for parameter in command.params}
    if "target" in names and "api_key_file" not in names:
        command.params += [option for option in _options() if option.name != "help"]


def _options() -> list[Any]:
    options = typer.Typer(add_completion=False)
    options.command()(_shared)
    return list(typer.main.get_command(options).params)


def _keep(parameter: typer.CallbackParam, value: Any) -> Any:
    _chosen[str(parameter.name)] = value
    return value


def _shared(
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            allow_from_autoenv=False,
            expose_value=False,
            callback=_keep,
            help=f"File with the API key or JWT to show; or set {API_KEY_FILE} or {API_KEY}.",
        ),
    ] = None,
    purpose: Annotated[
        str | None,
        typer.Option(
            allow_from_autoenv=False,
            expose_value=False,
            callback=_keep,
            help=f"Why this is asked, for the audit; or set {PURPOSE}.",
        ),
    ] = None,
) -> None:
    """Only declares them."""
