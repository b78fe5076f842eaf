"""`resight config`: the settings a service started here would have, and whether it could start."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, SecretStr

from resight.console import emit
from service.environment import DELIMITER, PREFIX
from service.settings import ServiceSettings, load_settings, try_settings

__all__ = ["app"]

app = typer.Typer(help="Show and check the effective settings.", no_args_is_help=True)
_PASSWORD_IN_URL = re.compile(r"(?<=://)[^/@]*@")
_MASK = "***"


@app.callback()
def config() -> None:
    """Show and check the effective settings."""


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


@app.command()
def check(
    bundle: Annotated[
        Path | None,
        typer.Option(envvar="RESIGHT_SERVE_BUNDLE", help="As of `resight serve`. [RESIGHT_BUNDLE]"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(envvar="RESIGHT_SERVE_DATA", help="Likewise. [RESIGHT_DATA_DIR]"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(envvar="RESIGHT_SERVE_HOST", help="Of both listeners.")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(envvar="RESIGHT_SERVE_GRPC_PORT", help="[RESIGHT_GRPC__PORT]")
    ] = None,
    rest_port: Annotated[
        int | None, typer.Option(envvar="RESIGHT_SERVE_REST_PORT", help="[RESIGHT_REST__PORT]")
    ] = None,
    probes_port: Annotated[
        int | None, typer.Option(envvar="RESIGHT_SERVE_PROBES_PORT", help="[RESIGHT_PROBES__PORT]")
    ] = None,
    running: Annotated[
        bool,
        typer.Option(
            "--running", help="A service runs with these settings: leave its ports and data alone."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at everything a start would look at, without starting; exit code 1 when it would fail.

    Settings, files, certificates, ports, bundle, data directory, database and its schema, clock and
    image store: all findings at once, and nothing is made or changed.
    """
    from service.commands.serve import given
    from service.environment import unread_names
    from service.preflight.report import Finding, checked

    settings, faults = try_settings(
        given(
            bundle=bundle,
            data_dir=data,
            grpc={"host": host, "port": grpc_port},
            rest={"host": host, "port": rest_port},
            probes={"port": probes_port},
        )
    )
    found = [Finding("settings", "failed", str(fault)) for fault in faults]
    named = {fault.field for fault in faults}
    found += [
        Finding("settings", "warning", f"{name} is no setting, and not read; remove or correct it")
        for name in unread_names(ServiceSettings)
        if name not in named
    ]
    if settings is not None:
        found += [Finding("settings", "ok", "can be read"), *checked(settings, running=running)]
    failed = [finding for finding in found if finding.outcome == "failed"]
    emit(
        {"ok": not failed, "findings": [asdict(finding) for finding in found]},
        as_json=as_json,
        text="\n".join(f"{each.outcome:<8} {each.check:<9} {each.message}" for each in found),
    )
    if failed:
        raise typer.Exit(1)


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
