"""The call that is being answered: who asks what, for which purpose, and what came of it.

The transport begins one for every RPC and every REST request; tasks made while it is answered see
the same one. Whatever runs apart from any call (fillings, retention, follow-up work) is the
service's own and sees `OWN`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import inf
from time import perf_counter
from typing import Literal
from uuid import uuid4

from resight.errors import InvalidArgument, ResightError
from service.domain import names
from service.domain.principal import LOCAL, Principal

__all__ = [
    "OWN",
    "UNREAD",
    "Call",
    "Noted",
    "Protocol",
    "begin",
    "current",
    "enter_gallery",
    "found_gallery",
]

Protocol = Literal["grpc", "rest", "own"]
Noted = str | int | float | bool | None | list[str]

# No name of a gallery.
UNREAD = "?"
_MAX_REASONS = 20
# Each has an entry of its own.
_MAX_UNFOUND = 8


def _free(_count: int) -> None:
    """Costs nothing."""


async def _let_in() -> None:
    """Holds for ever."""


@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        protocol: How it came.
        method: ``Service/Method`` as in the proto, for REST that of the RPC it mirrors; empty
            while a REST request has no route yet.
        peer: Network address of the caller.
        certificate: Subject of the certificate the caller showed (RFC 4514); empty without mTLS.
        principal: Who asks; None until that is known.
        formerly: Who would be asking if their key had not been revoked or expired.
        purpose: Why, as the caller declared.
        gallery: The gallery named, once one was; the first that there is.
        galleries: Those that there are among the named ones, with what is noted of each; a batch
            and a stream name several.
        unfound: What is noted of the parts that name others, by name; an empty one for names that
            are none, and those after the first few.
        request_id: The same in answer, logs, traces and audit.
        begun: ``perf_counter`` when it came.
        patience: Seconds that the caller gives for the answer to a request that is all here; 0 for
            a stream, which lasts as long as its caller likes, infinite without a deadline.
        admitted: Whether it was let go on to the method.
        streams: Whether its answer goes on after it has begun.
        announced: Whether the audit has recorded that it begins.
        announced_in: The gallery that was named then.
        closed: Whether its end is being recorded, or was.
        recorded: Whether the audit records it; not what was refused too often.
        looked_at: ``monotonic`` when the credentials were looked at last.
        lapsed: What a stream ends with, once the credentials hold no longer that it was begun with.
        on_lapse: Called then by a stream that ends in its own way.
        charge: Counts more requests against the caller's bounds, and raises when that is too many.
        confirm: Looks again whether the caller is let in, before what took long is put to use, and
            raises when not; that their time alone has run out since the call began is no fault.
        reason: Code of the error that it is answered with; empty for none.
        named: The field at fault; empty for none, or for one that is no name of ours.
        notes: What the audit records besides; never an image, a vector or a secret.
    """

    protocol: Protocol
    method: str
    peer: str = ""
    certificate: str = ""
    principal: Principal | None = None
    formerly: str = ""
    purpose: str = ""
    gallery: str = ""
    galleries: dict[str, dict[str, Noted]] = field(default_factory=dict)
    unfound: dict[str, dict[str, Noted]] = field(default_factory=dict)
    request_id: str = field(default_factory=lambda: uuid4().hex)
    begun: float = field(default_factory=perf_counter)
    patience: float = inf
    admitted: bool = False
    streams: bool = False
    announced: bool = False
    announced_in: str = ""
    closed: bool = False
    recorded: bool = True
    looked_at: float = 0.0
    lapsed: ResightError | None = None
    on_lapse: Callable[[], object] | None = None
    charge: Callable[[int], None] = _free
    confirm: Callable[[], Awaitable[None]] = _let_in
    reason: str = ""
    named: str = ""
    notes: dict[str, Noted] = field(default_factory=dict)

    @property
    def known(self) -> Principal:
        """Who asks.

        Raises:
            RuntimeError: nobody was let in yet.
        """
        if self.principal is None:
            raise RuntimeError(f"{self.method} is answered before anybody was let in")
        return self.principal

    def lapse(self, fault: ResightError) -> None:
        """The credentials hold no longer that this stream was begun with."""
        self.lapsed = fault
        if self.on_lapse is not None:
            self.on_lapse()

    def note(self, **notes: Noted) -> None:
        """Have the audit record something; the service's own work records nothing."""
        if self is not OWN:
            self.notes.update(notes)

    def fail(self, error: ResightError, *, named: str = "") -> None:
        """The call is answered with an error.

        Args:
            error: It.
            named: The field at fault where that is a name of ours; the error's may be a caller's.
        """
        if self is not OWN:
            self.reason, self.named = error.reason, named

    def count(self, what: str, gallery: str) -> None:
        """Have the audit count a part of a call of many, for the gallery that it is of.

        Args:
            what: What came of it.
            gallery: As it names it, checked or not; `UNREAD` where that is not known.
        """
        if self is not OWN:
            _count(self._part(gallery), what)

    def note_fault(self, reason: str, gallery: str, *, denied: bool = False) -> None:
        """Have the audit count a part that failed of a call that goes on, and say why.

        Args:
            reason: Code of its error.
            gallery: As of ``count``.
            denied: Whether it is not the caller's.
        """
        if self is OWN:
            return
        noted = self._part(gallery)
        for name in ("failed", "denied") if denied else ("failed",):
            _count(noted, name)
        known = noted.get("reasons")
        reasons = known if isinstance(known, list) else []
        if reason not in reasons:
            noted["reasons"] = [*reasons, reason][:_MAX_REASONS]

    def _part(self, gallery: str) -> dict[str, Noted]:
        try:
            name = names.gallery_name(gallery)
        except InvalidArgument:
            name = ""
        if name in self.galleries:
            return self.galleries[name]
        own = name in self.unfound or name == self.announced_in or len(self.unfound) < _MAX_UNFOUND
        return self.unfound.setdefault(name if own else "", {})


def _count(noted: dict[str, Noted], name: str) -> None:
    count = noted.get(name, 0)
    noted[name] = 1 + (count if isinstance(count, int) else 0)


OWN = Call("own", "", principal=LOCAL)

_CURRENT: ContextVar[Call] = ContextVar("call", default=OWN)


def begin(call: Call) -> None:
    """Make this the call that the task, and tasks it makes, work for."""
    _CURRENT.set(call)


def current() -> Call:
    """The call that is being answered."""
    return _CURRENT.get()


def enter_gallery(name: str) -> None:
    """The call is about this gallery, existing or not.

    Raises:
        PermissionDenied: it is not among the caller's.
    """
    now = current()
    # It ends where it began, also when nothing that it names is there.
    if now is not OWN and not now.galleries and not now.announced_in:
        now.gallery = name
    now.known.require_gallery(name)


def found_gallery(name: str) -> None:
    """The call is about this gallery, which exists and is the caller's."""
    now = current()
    if now is not OWN and name not in now.galleries:
        if not now.galleries:
            now.gallery = name
        now.galleries[name] = now.unfound.pop(name, {})
