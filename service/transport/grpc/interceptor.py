"""Around every call of resight.v1: its caller is let in or not, it is counted and timed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from time import perf_counter
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status as grpc_details

from resight.errors import DeadlineExceeded, ResightError
from service import call as call_in_progress
from service import call_log
from service.access.gate import Gate, OpenDoor
from service.call import Call
from service.call_log import Traffic
from service.domain import names
from service.telemetry import INFLIGHT, REQUEST_DURATION, REQUESTS, exemplar
from service.tracing.spans import leaf
from service.transport.call_trace import TRACERESPONSE, begin_grpc, end_grpc
from service.transport.faults import faulty
from service.transport.grpc.client_stream import begun, each, let_on
from service.transport.grpc.health_room import HealthRoom
from service.transport.grpc.message import Unreadable, only_message, readable
from service.transport.grpc.metadata import certificate_of, credentials_of, purpose_of
from service.transport.grpc.running_calls import RunningCalls
from service.transport.patience import counted_code, given_by, has_lapsed
from service.transport.status import rpc_status, status_of
from service.transport.subjects import note_message
from service.transport.text_limit import check_message

__all__ = ["CallInterceptor"]

# Their stubs miss `abort_with_status` and that a handler has only one of its behaviours.
Context = Any
Handler = Any

_PREFIX = "/resight.v1."
_REFLECTION = "/grpc.reflection."
_HEALTH = "/grpc.health."
_OF_ALL = frozenset({"AdminService/ListAuditEntries"})
_LINGER_SECONDS = 0.25
_LOG = logging.getLogger(__name__)
_INFLIGHT = INFLIGHT.labels("grpc")


class CallInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic
    """Wraps the handlers of resight.v1 once each, and with authentication that of reflection, which
    needs no scope; health passes bounded.

    Args:
        places: Calls that the server takes at the same time.
    """

    def __init__(self, places: int) -> None:
        self._wrapped: dict[str, Handler] = {}
        self._health = HealthRoom(places)
        self._calls = RunningCalls()
        self.gate = Gate(OpenDoor())

    async def refuse(self, grace: float) -> None:
        """Answer new calls UNAVAILABLE and wait, at most ``grace`` seconds, for those running.

        A call that reaches a closing gRPC server is cut off as CANCELLED, which no client takes
        for "try elsewhere". So calls are refused in words first, and for a moment after the last
        one has ended, for those that are already on the wire.
        """
        self._calls.refused = True
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._calls.idle.wait()
                await asyncio.sleep(_LINGER_SECONDS)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """The wrapped handler of the method called."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is not None and method.startswith(_HEALTH):
                self._wrapped[method] = wrapped = self._health.wrapped(handler)
                return wrapped
            own = method.startswith(_PREFIX)
            # Reflection says what there is to call, so it is for whoever is known.
            asked = own or (method.startswith(_REFLECTION) and not self.gate.is_open)
            if handler is None or not asked:
                return handler
            name = method.removeprefix(_PREFIX if own else "/")
            wrapped = _wrap(handler, name, self._calls, lambda: self.gate, admits=own)
            self._wrapped[method] = wrapped
        return wrapped


def _wrap(
    handler: Handler, method: str, calls: RunningCalls, gate: Callable[[], Gate], *, admits: bool
) -> Handler:
    behaviour: Any = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )

    async def unary(requests: AsyncIterator[Any], context: Context) -> Any:
        passed = gate()
        async with counted(context, passed) as traffic:
            request = await given(requests, traffic)
            if admits and not handler.request_streaming:
                await passed.go_on(call_in_progress.current(), credentials_of(context))
            async with begins_with(request, passed, credentials_of(context)) as begins:
                response = await behaviour(begins, context)
            traffic.went(response)
            return response

    async def stream(requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        passed = gate()
        async with counted(context, passed) as traffic:
            call, credentials = call_in_progress.current(), credentials_of(context)
            if handler.request_streaming:
                # What was taken is answered, whatever has become of the credentials since.
                requests = let_on(requests, passed, call, credentials)
            with passed.streaming(call, credentials):
                request = await given(requests, traffic)
                if not handler.request_streaming:
                    await passed.go_on(call, credentials)
                async with (
                    begins_with(request, passed, credentials) as begins,
                    aclosing(behaviour(begins, context)) as answers,
                ):
                    async for response in answers:
                        if not handler.request_streaming:
                            await passed.go_on(call, credentials)
                        traffic.went(response)
                        yield response

    def deserialized(data: bytes) -> Any:
        # An error raised here would be answered UNKNOWN, and not counted.
        try:
            return handler.request_deserializer(data)
        except DecodeError as error:
            return Unreadable(str(error))

    streams = bool(handler.request_streaming or handler.response_streaming)
    counted = partial(_call, method, calls, admits=admits, streams=streams)
    begins_with = partial(
        begun,
        admits=admits,
        listens=bool(handler.request_streaming),
        streams=bool(handler.response_streaming),
    )
    given: Any = each if handler.request_streaming else _entered
    coding = {
        "request_deserializer": deserialized,
        "response_serializer": handler.response_serializer,
    }
    # Whose message it is must be known before it is read.
    if handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(stream, **coding)
    return grpc.stream_unary_rpc_method_handler(unary, **coding)


async def _entered(requests: AsyncIterator[Any], traffic: Traffic) -> Any:
    """The request, when its gallery is one of the caller's: before anything else in it is looked
    at. A stream's messages each name their own.
    """
    request = readable(await only_message(requests), traffic)
    check_message(request)
    note_message(request)
    gallery = getattr(request, "gallery", None)
    call = call_in_progress.current()
    # Of the audit's list none is all, everywhere else it is the default one.
    if gallery or (gallery is not None and call.method not in _OF_ALL):
        call_in_progress.enter_gallery(names.gallery_name(gallery))
    return request


@asynccontextmanager
async def _call(
    method: str, calls: RunningCalls, context: Context, gate: Gate, *, admits: bool, streams: bool
) -> AsyncIterator[Traffic]:
    begun = perf_counter()
    code = grpc.StatusCode.OK
    traffic = Traffic()
    traced = begin_grpc(method, context.invocation_metadata())
    # Each call has a task of its own, so nobody else sees it, and it need not be taken back.
    call = Call("grpc", method, peer=context.peer(), certificate=certificate_of(context))
    call.patience = 0.0 if streams else given_by(context)
    call_in_progress.begin(call)
    if traced is not None:
        context.set_trailing_metadata(((TRACERESPONSE, traced.traceresponse),))
    _INFLIGHT.inc()
    try:
        with calls.one():
            await gate.know(call, credentials_of(context))
            call.purpose = purpose_of(context)
            if admits:
                gate.admit(call)
            yield traffic
            with leaf("audit"):
                await gate.leave(call, code.name)
    except ResightError as error:
        code = status_of(error).grpc
        faulty(error)
        await _leave(gate, call, code)
        await _abort(context, error, call)
    except (asyncio.CancelledError, GeneratorExit):
        code = grpc.StatusCode.CANCELLED
        ended = call.lapsed
        if ended is None and not streams and has_lapsed(context):
            ended = DeadlineExceeded("the deadline passed before the answer was there")
        if ended is not None:
            code = status_of(ended).grpc
            faulty(ended)
        await _leave(gate, call, code)
        if call.lapsed is not None:
            # gRPC tells nobody of a task that is cancelled. It may be in the midst of a message
            # that is not read, and then that error would be for nobody either.
            with suppress(grpc.aio.AbortError):
                await _abort(context, call.lapsed, call)
        raise
    except grpc.aio.AbortError:
        code = grpc.StatusCode(context.code())
        await _leave(gate, call, code)
        raise
    except Exception as error:
        code = grpc.StatusCode.INTERNAL
        await _leave(gate, call, code)
        await _abort_bug(context, error, call)
    finally:
        _INFLIGHT.dec()
        seconds = perf_counter() - begun
        REQUESTS.labels("grpc", method, counted_code(code.name, call)).inc()
        REQUEST_DURATION.labels("grpc", method).observe(seconds, exemplar(call))
        call_log.written(code.name, seconds, traffic)
        if traced is not None:
            end_grpc(traced, call, code)


async def _leave(gate: Gate, call: Call, code: grpc.StatusCode) -> None:
    """The caller gets an error anyhow, so one of the record is for the log."""
    try:
        with leaf("audit"):
            await gate.leave(call, code.name)
    except ResightError as error:
        _LOG.error("%s could not be recorded: %s, request %s", call.method, error, call.request_id)


async def _abort(context: Context, error: ResightError, call: Call) -> None:
    if status_of(error).grpc is grpc.StatusCode.INTERNAL:
        await _abort_bug(context, error, call)
    await context.abort_with_status(_status(context, error, call))


async def _abort_bug(context: Context, error: Exception, call: Call) -> None:
    """Answer a fault of ours: the caller learns an id, the log what happened."""
    _LOG.error("%s failed, request %s", call.method, call.request_id, exc_info=error)
    shown = error if isinstance(error, ResightError) else _bug(call.request_id)
    await context.abort_with_status(_status(context, shown, call))


def _status(context: Context, error: ResightError, call: Call) -> Any:
    status: Any = grpc_details.to_status(rpc_status(error, request_id=call.request_id))
    # Those of a status take the place of what was to be sent otherwise.
    trailing = (*(context.trailing_metadata() or ()), *status.trailing_metadata)
    return status._replace(trailing_metadata=trailing)


def _bug(request_id: str) -> ResightError:
    return ResightError(
        f"the service failed on this request; its log says why under request {request_id}"
    )
