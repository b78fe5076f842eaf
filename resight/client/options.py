"""Options that every client command takes."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["AsJson", "Gallery", "Target"]

Target = Annotated[str, typer.Option(help="host:port of the service's gRPC listener.")]
Gallery = Annotated[str, typer.Option(help="Gallery (site or tenant) to use.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
