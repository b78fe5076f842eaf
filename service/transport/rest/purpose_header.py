"""The header in which a caller says why, on the page that describes the API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.access.purposes import PURPOSEFUL
from service.access.rights import ROUTES
from service.transport.purpose import MAX_PURPOSE, PURPOSE

__all__ = ["document"]

_PARAMETER = {
    "name": PURPOSE,
    "in": "header",
    "required": False,
    "description": "Why this is asked, for the audit: percent-encoded UTF-8. A service may require "
    "it, and may allow only purposes that it lists.",
    # Encoded, a character takes up to twelve.
    "schema": {"type": "string", "maxLength": 12 * MAX_PURPOSE, "pattern": "^[!-~]*$"},
}


def document(app: FastAPI) -> None:
    """Add it to every operation that searches or shows."""
    make = app.openapi

    def described() -> dict[str, Any]:
        known = app.openapi_schema is not None
        schema = make()
        if not known:
            for path, operations in schema["paths"].items():
                for verb, operation in operations.items():
                    if ROUTES.get(f"{verb.upper()} {path}") in PURPOSEFUL:
                        operation.setdefault("parameters", []).append(_PARAMETER)
        return schema

    app.openapi = described  # type: ignore[method-assign]
