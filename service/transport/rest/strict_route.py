"""Routes that refuse what they would otherwise pass over in silence.

A misspelled filter that is ignored answers a question nobody asked. So an unknown query parameter
or form field, one that comes twice and is no list, a key that comes twice in one JSON object and a
body of another content type are errors here; in JSON bodies the models themselves refuse unknown
fields.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import suppress
from typing import Any, get_origin
from urllib.parse import unquote_to_bytes

from fastapi import HTTPException, Request, Response, params
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.datastructures import FormData, QueryParams

from resight.errors import InvalidArgument
from service import call
from service.access.gate import Credentials
from service.access.rights import ROUTES
from service.domain import names
from service.transport.purpose import PURPOSE_FAULT
from service.transport.subjects import note_fields
from service.transport.text_limit import MAX_TEXT, check_json, check_text

__all__ = ["StrictRoute", "once"]

_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_SHOWN = 80
# Whose answers go on after they have begun.
_STREAMS = frozenset({"AdaptationService/StreamAdaptationCrops"})
# Which may take longer than a token holds, and look again before they put anything to use.
_UPLOADS = frozenset({"ModelService/RegisterModel"})


class StrictRoute(APIRoute):
    """A route of our API; pass as ``route_class`` to every router."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler behind our checks."""
        handle = super().get_route_handler()
        queries = {field.alias for field in self.dependant.query_params}
        single = {
            field.alias
            for field in self.dependant.query_params
            if get_origin(field.field_info.annotation) is not list
        }
        body = self.dependant.body_params
        forms = {field.alias for field in body if isinstance(field.field_info, params.Form)}

        verb = min(self.methods or {""})

        async def strict(request: Request) -> Response:
            now = call.current()
            # A route knows its path below the prefix of its router alone.
            prefix = "/v1/galleries/{gallery}" if "gallery" in request.path_params else "/v1"
            now.method = ROUTES.get(f"{verb} {prefix}{self.path}", "")
            now.streams = now.method in _STREAMS
            note_fields(request.path_params)
            state = request.scope["state"]
            if PURPOSE_FAULT in state:
                raise state[PURPOSE_FAULT]
            state["gate"].admit(now)
            if "gallery" in request.path_params:
                # Before the body is read.
                call.enter_gallery(names.gallery_name(request.path_params["gallery"]))
            if now.method in _UPLOADS:
                await state["gate"].announce(now)
            request = _StrictRequest(request.scope, request.receive)
            _decodable(request.scope["query_string"])
            _known(request.query_params, queries - request.path_params.keys(), "query parameter")
            once(request.query_params, single)
            for name, value in request.query_params.multi_items():
                check_text(name, value)
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if forms:
                _expect(kind, _FORMS[:1] if _with_file(body) else _FORMS)
                form = await request.form()
                note_fields(_beside(form, request.path_params))
                _known(form, forms, "field of this form")
                once(form, forms)
                for name, given in form.multi_items():
                    check_text(name, given)
            elif body:
                _expect(kind, ("application/json",))
                # Read here, because FastAPI would hide our error behind words of its own; what is
                # no JSON it says well itself.
                with suppress(json.JSONDecodeError):
                    sent = await request.json()
                    if isinstance(sent, dict):
                        note_fields(_beside(sent, request.path_params))
            if now.method not in _UPLOADS:
                # However long the body took.
                shown = Credentials(request.headers.get("authorization", ""))
                await state["gate"].go_on(now, shown)
                # Now that it is known of what.
                await state["gate"].announce(now, streams=now.streams)
            return await handle(request)

        return strict


def _beside(fields: Mapping[str, Any], path: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a body without what the path names, which is what the call is about."""
    return {name: value for name, value in fields.items() if name not in path}


def once(given: QueryParams | FormData, single: Collection[str]) -> None:
    """Refuse several values where one would win unseen.

    Raises:
        InvalidArgument: one of ``single`` comes twice.
    """
    for name, count in Counter(name for name, _ in given.multi_items()).items():
        if count > 1 and name in single:
            raise InvalidArgument(f"{name} comes twice; send it once", field=name)


class _StrictRequest(Request):
    async def json(self) -> Any:
        """The body.

        Raises:
            JSONDecodeError: It is not JSON in UTF-8, or is nested too deeply.
            HTTPException: A key comes twice.
            InvalidArgument: A text is too long.
        """
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                from_json(body)
            except ValueError as error:
                raise json.JSONDecodeError(str(error), "", 0) from error
            self._json = json.loads(body, object_pairs_hook=_unique)
            if len(body) > MAX_TEXT:
                check_json(self._json)
        return self._json


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise HTTPException(400, f"{twice[:_SHOWN]!r} comes twice in one object; send it once")
    return found


def _decodable(query: bytes) -> None:
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            "the query of the URL is not UTF-8; percent-encode text in UTF-8", field="query"
        ) from error


def _known(names: Iterable[str], known: Collection[str], what: str) -> None:
    for name in names:
        if name not in known:
            expected = f"known are {', '.join(sorted(known))}" if known else "there are none here"
            raise InvalidArgument(
                f"{name[:_SHOWN]!r} is no {what}; {expected}", field=name[:_SHOWN]
            )


def _expect(kind: str, expected: tuple[str, ...]) -> None:
    if kind not in expected:
        raise InvalidArgument(
            f"content-type is {kind[:_SHOWN]!r}; send {' or '.join(expected)}",
            field="content-type",
        )


def _with_file(body: Iterable[Any]) -> bool:
    return any(isinstance(field.field_info, params.File) for field in body)
