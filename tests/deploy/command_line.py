"""What the deployment files may say to resight: command lines and names in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import typer

from resight.cli import app
from resight.client.caller import API_KEY, API_KEY_FILE, PURPOSE
from resight.client.tls import CA_FILE, CLIENT_CERT_FILE, CLIENT_KEY_FILE, CLIENT_TLS
from service.environment import DELIMITER, PREFIX
from service.settings import ServiceSettings, load_settings

OF_CLIENTS = {
    API_KEY,
    API_KEY_FILE,
    PURPOSE,
    CA_FILE,
    CLIENT_CERT_FILE,
    CLIENT_KEY_FILE,
    CLIENT_TLS,
}


@contextmanager
def environment(told: Mapping[str, str]) -> Iterator[None]:
    """Nothing of resight in the environment but this."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(PREFIX):
                patch.delenv(name)
        for name, value in told.items():
            patch.setenv(name, value)
        yield


def parsed(arguments: list[str], told: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that a command line sets, without running it; a wrong one raises."""
    with environment(told):
        command: Any = typer.main.get_command(app)
        context = command.make_context("resight", list(arguments))
        while hasattr(command, "commands"):
            rest = [*context._protected_args, *context.args]
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)
    return dict(context.params)


def unknown_names(told: Mapping[str, str], arguments: list[str]) -> set[str]:
    """Names of ours that neither a setting, a client nor an option of the command reads."""
    ours = {name for name in told if name.startswith(PREFIX)}
    names = set(_setting_names())
    command = f"{PREFIX}{'_'.join(arguments[:2])}_".upper()
    with environment({}):
        options = {
            f"{command}{name}".upper() for name in parsed([*arguments, *_required(arguments)], {})
        }
    return ours - names - {f"{name}_FILE" for name in names} - OF_CLIENTS - options


def settings_of(told: Mapping[str, str]) -> ServiceSettings:
    """What the service makes of an environment; a wrong one raises."""
    with environment(told):
        return load_settings()


def _setting_names() -> Iterator[str]:
    for name, field in ServiceSettings.model_fields.items():
        section = getattr(field.annotation, "model_fields", None)
        for key in section or ():
            yield f"{PREFIX}{name}{DELIMITER}{key}".upper()
        if not section:
            yield f"{PREFIX}{name}".upper()


def _required(arguments: list[str]) -> list[str]:
    missing = (
        {"--live", "--state"} - set(arguments) if arguments[:2] == ["adapt", "nightly"] else ()
    )
    return [part for option in sorted(missing) for part in (option, "/somewhere")]
