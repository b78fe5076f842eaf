"""Options that every client command takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

__all__ = ["AsJson", "Gallery", "Target", "instant"]

Target = Annotated[str, typer.Option(help="host:port of the service's gRPC listener.")]
Gallery = Annotated[str, typer.Option(help="Gallery (site or tenant) to use.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def instant(text: str | None, option: str) -> datetime | None:
    """The aware UTC time that an option names in RFC 3339.

    Raises:
        BadParameter: It is no time, or has no UTC offset.
    """
    if text is None:
        return None
    try:
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not a time such as 2026-01-01T00:00:00Z", param_hint=option
        ) from error
    if value.tzinfo is None:
        raise typer.BadParameter("append Z for UTC", param_hint=option)
    return value.astimezone(UTC)
