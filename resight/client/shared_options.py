"""Options that every command with ``--target`` takes, added to all of them at once: how it is let
in. They are read by ``connect``, so that no command has to hand them on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.client.caller import API_KEY, API_KEY_FILE, PURPOSE
from resight.client.tls import CA_FILE, CLIENT_CERT_FILE, CLIENT_KEY_FILE, CLIENT_TLS

__all__ = ["add_shared_options", "chosen"]

_chosen: dict[str, Any] = {}


def chosen(*names: str) -> Mapping[str, Any]:
    """What the command line said of these options; nothing outside one."""
    return {name: _chosen[name] for name in names if name in _chosen}


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
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls",
            allow_from_autoenv=False,
            expose_value=False,
            callback=_keep,
            help=f"Speak TLS and trust the system's CAs; or set {CLIENT_TLS}=true.",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            allow_from_autoenv=False,
            expose_value=False,
            callback=_keep,
            help=f"Speak TLS and trust the CAs in this PEM file; or set {CA_FILE}.",
        ),
    ] = None,
    client_cert_file: Annotated[
        Path | None,
        typer.Option(
            allow_from_autoenv=False,
            expose_value=False,
            callback=_keep,
            help=f"Certificate to show (PEM), for mTLS; or set {CLIENT_CERT_FILE}.",
        ),
    ] = None,
    client_key_file: Annotated[
        Path | None,
        typer.Option(
            allow_from_autoenv=False,
            expose_value=False,
            callback=_keep,
            help=f"Its key (PEM); or set {CLIENT_KEY_FILE}.",
        ),
    ] = None,
) -> None:
    """Only declares them."""
