"""`resight keys`: make, list and revoke API keys, of a running service or on its catalog."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.options import AsJson, Target, instant
from resight.console import emit, note
from resight.v1 import admin_service_pb2 as messages
from service.access import direct
from service.domain.api_key import ApiKey, KeyRequest
from service.domain.principal import SCOPES
from service.settings import ServiceSettings, load_settings

__all__ = ["app"]

app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)

Data = Annotated[
    Path | None,
    typer.Option(
        help="Data directory: work on its catalog (or RESIGHT_DATABASE_URL) and ask no service."
    ),
]
_TIMES = ("start_time", "end_time", "create_time", "expire_time", "revoke_time")


@app.callback()
def _group() -> None:
    """Make, list and revoke API keys."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[list[str], typer.Option(help=f"{', '.join(SCOPES)}; repeatable.")],
    gallery: Annotated[
        list[str] | None, typer.Option(help="Only this gallery; repeatable.")
    ] = None,
    camera: Annotated[
        list[str] | None, typer.Option(help="Only crops of this camera; repeatable.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Only crops captured from then on, RFC 3339.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Only crops captured before, RFC 3339.")
    ] = None,
    per_minute: Annotated[int, typer.Option(help="Requests a minute; 0: as set up.")] = 0,
    per_day: Annotated[int, typer.Option(help="Requests a day (UTC); 0: as set up.")] = 0,
    expires: Annotated[str | None, typer.Option(help="Refused from then on, RFC 3339.")] = None,
    days: Annotated[float | None, typer.Option(help="Expires in so many days.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the key to this new file, readable by you alone.")
    ] = None,
    target: Target = DEFAULT_TARGET,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it: the only time that it is shown."""
    asked = KeyRequest(
        display_name=name,
        scopes=scope,
        galleries=gallery or [],
        camera_ids=camera or [],
        start_time=instant(since, "--from"),
        end_time=instant(until, "--to"),
        requests_per_minute=per_minute,
        requests_per_day=per_day,
        expire_time=_expiry(expires, days),
    )
    # Before the key exists: one that cannot be handed over would be lost.
    file = None if output is None else os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if data is not None:
            made = direct.create(_settings(data), asked)
            shown, text = _of_domain(made.key), made.text
        else:
            with connect(target) as connection:
                answer = connection.admin.CreateApiKey(
                    messages.CreateApiKeyRequest(api_key=_message(asked))
                )
            shown, text = _of_message(answer.api_key), answer.secret
        if file is not None:
            os.write(file, f"{text}\n".encode())
    except BaseException:
        if output is not None:
            output.unlink()
        raise
    finally:
        if file is not None:
            os.close(file)
    note(f"key {shown['key_id']} ({', '.join(shown['scopes'])}) is made; keep it, it is not stored")
    secret = {} if output is not None else {"secret": text}
    emit({"api_key": shown, **secret}, as_json=as_json, text=str(output) if output else text)


@app.command("list")
def list_(target: Target = DEFAULT_TARGET, data: Data = None, as_json: AsJson = False) -> None:
    """Print every key, newest first, without the secrets."""
    if data is not None:
        found = [_of_domain(key) for key in direct.every(_settings(data))]
    else:
        found, request = [], messages.ListApiKeysRequest(page_size=1000)
        with connect(target) as connection:
            while True:
                page = connection.admin.ListApiKeys(request)
                found += [_of_message(key) for key in page.api_keys]
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
    lines = [_line(key) for key in found]
    emit({"api_keys": found}, as_json=as_json, text="\n".join(lines) or "no keys")


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The part between the two underscores.")],
    target: Target = DEFAULT_TARGET,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key; every replica refuses it within access.refresh_seconds."""
    if data is not None:
        shown = _of_domain(direct.revoke(_settings(data), key_id))
    else:
        with connect(target) as connection:
            request = messages.RevokeApiKeyRequest(key_id=key_id)
            shown = _of_message(connection.admin.RevokeApiKey(request).api_key)
    text = f"key {shown['key_id']} was revoked {shown['revoke_time']}"
    emit({"api_key": shown}, as_json=as_json, text=text)


def _settings(data: Path) -> ServiceSettings:
    return load_settings({"data_dir": data})


def _expiry(expires: str | None, days: float | None) -> datetime | None:
    if expires is not None and days is not None:
        raise typer.BadParameter("say --expires or --days, not both", param_hint="--days")
    if days is None:
        return instant(expires, "--expires")
    try:
        return datetime.now(UTC) + timedelta(days=days)
    except (OverflowError, ValueError) as error:
        raise typer.BadParameter(f"{days} days are too many", param_hint="--days") from error


def _message(asked: KeyRequest) -> messages.ApiKey:
    message = messages.ApiKey(
        display_name=asked.display_name,
        scopes=[_scope(scope) for scope in asked.scopes],
        galleries=asked.galleries,
        camera_ids=asked.camera_ids,
        requests_per_minute=asked.requests_per_minute,
        requests_per_day=asked.requests_per_day,
    )
    for name in ("start_time", "end_time", "expire_time"):
        value = getattr(asked, name)
        if value is not None:
            getattr(message, name).FromDatetime(value)
    return message


def _scope(name: str) -> messages.Scope.ValueType:
    if name not in SCOPES:
        raise typer.BadParameter(
            f"{name!r} is none; there are {', '.join(SCOPES)}", param_hint="--scope"
        )
    return messages.Scope.Value(f"SCOPE_{name.upper()}")


def _of_message(key: messages.ApiKey) -> dict[str, Any]:
    scopes = [messages.Scope.Name(scope).removeprefix("SCOPE_").lower() for scope in key.scopes]
    times = {name: _time(key, name) for name in _TIMES}
    return _shown(
        key.key_id, key.display_name, scopes, key.galleries, key.camera_ids,
        key.requests_per_minute, key.requests_per_day, key.creator, times,
    )  # fmt: skip


def _time(key: messages.ApiKey, name: Any) -> str | None:
    value: Timestamp = getattr(key, name)
    return _text(value.ToDatetime(UTC)) if key.HasField(name) else None


def _of_domain(key: ApiKey) -> dict[str, Any]:
    named = {
        "start_time": key.capture_range.start_time,
        "end_time": key.capture_range.end_time,
        "create_time": key.create_time,
        "expire_time": key.expire_time,
        "revoke_time": key.revoke_time,
    }
    times = {name: None if value is None else _text(value) for name, value in named.items()}
    return _shown(
        key.key_id, key.display_name, key.scopes, key.galleries, key.camera_ids,
        key.requests_per_minute, key.requests_per_day, key.creator, times,
    )  # fmt: skip


def _shown(
    key_id: str,
    name: str,
    scopes: Any,
    galleries: Any,
    camera_ids: Any,
    per_minute: int,
    per_day: int,
    creator: str,
    times: dict[str, str | None],
) -> dict[str, Any]:
    return {
        "key_id": key_id,
        "display_name": name,
        "scopes": list(scopes),
        "galleries": list(galleries),
        "camera_ids": list(camera_ids),
        "requests_per_minute": per_minute,
        "requests_per_day": per_day,
        "creator": creator,
        **times,
    }


def _text(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _line(key: dict[str, Any]) -> str:
    state = "valid"
    if key["revoke_time"]:
        state = f"revoked {key['revoke_time']}"
    elif key["expire_time"]:
        over = datetime.fromisoformat(key["expire_time"]) <= datetime.now(UTC)
        state = f"{'expired' if over else 'until'} {key['expire_time']}"
    galleries = ",".join(key["galleries"]) or "every gallery"
    return (
        f"{key['key_id']}  {','.join(key['scopes'])}  {galleries}  {state}  {key['display_name']}"
    )
