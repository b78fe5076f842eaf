"""Every error of the REST API is problem+json (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from resight.errors import InvalidArgument, ResightError
from service import call
from service.transport.faults import faulty
from service.transport.status import CLIENT_LEFT, problem, status_of

__all__ = ["PROBLEMS", "Problem", "document", "install"]


_SHOWN_ERRORS = 10
_SHOWN_CHARACTERS = 80


class FieldProblem(BaseModel):
    """One field at fault."""

    field: str
    detail: str


class Problem(BaseModel):
    """RFC 9457, with our extensions ``reason``, ``field``, ``errors`` and ``request_id``."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    instance: str = ""
    reason: str = ""
    field: str | None = None
    errors: list[FieldProblem] | None = None
    retry_after_seconds: float | None = None
    request_id: str | None = None


class ProblemResponse(JSONResponse):
    """JSON with the media type of problems."""

    media_type = "application/problem+json"


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Any error",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
}


def install(app: FastAPI) -> None:
    """Register the handlers; bugs are answered by the outermost middleware."""
    app.add_exception_handler(ResightError, _resight)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _left)


def document(app: FastAPI) -> None:
    """Describe `Problem` in the OpenAPI page, and nothing that is never answered."""
    make = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = make()
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            template = "#/components/schemas/{model}"
            model = Problem.model_json_schema(ref_template=template)
            components |= model.pop("$defs", {})
            components["Problem"] = model
            for unused in ("HTTPValidationError", "ValidationError"):
                components.pop(unused, None)
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]


async def _resight(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ResightError)  # noqa: S101 -- registered for this class
    if status_of(error).http == HTTPStatus.INTERNAL_SERVER_ERROR and error.reason == "INTERNAL":
        raise error
    faulty(error)
    status, headers, body = problem(
        error, instance=request.url.path, request_id=call.current().request_id
    )
    return ProblemResponse(body, status_code=status, headers=headers)


async def _validation(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    found = error.errors()
    errors = [_field_problem(item) for item in found[:_SHOWN_ERRORS]]
    detail = "; ".join(f"{item['field'] or 'body'}: {item['detail']}" for item in errors)
    if len(found) > _SHOWN_ERRORS:
        detail += f"; and {len(found) - _SHOWN_ERRORS} more"
    faulty(InvalidArgument(detail, field=errors[0]["field"]))
    return _plain(
        HTTPStatus.UNPROCESSABLE_ENTITY, detail, request, reason="INVALID_ARGUMENT", errors=errors
    )


def _field_problem(item: Any) -> dict[str, str]:
    if item["type"] == "json_invalid":
        return {"field": "", "detail": f"not JSON in UTF-8: {item['ctx']['error']}"}
    field = ".".join(str(part)[:_SHOWN_CHARACTERS] for part in item["loc"][1:])
    return {"field": field, "detail": item["msg"]}


async def _http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    status = HTTPStatus(error.status_code)
    faulty(ResightError(str(error.detail), reason=status.name))
    return _plain(status, str(error.detail), request, headers=error.headers, reason=status.name)


async def _left(_request: Request, _error: Exception) -> Response:
    """Nobody reads it, and it is no fault of ours."""
    return Response(status_code=CLIENT_LEFT)


def _plain(
    status: HTTPStatus, detail: str, request: Request, *, headers: Any = None, **extension: Any
) -> ProblemResponse:
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": int(status),
        "detail": detail,
        "instance": request.url.path,
        "request_id": call.current().request_id,
    }
    return ProblemResponse(body | extension, status_code=int(status), headers=headers)
