"""Records every call: what it was, who asked from where and why, and what came of it.

A search or a view is recorded once, when its answer is ready and before it is sent; if that fails
the caller gets the failure instead. A change or a stream is recorded when it begins as well, and
does not happen if that fails. Its end is owed: a change that is committed stays so, therefore the
caller is told the truth, and the entry follows as soon as it can be stored. A beginning without an
end is a process that died, or an audit that could not be written to the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any

from resight.errors import Unavailable
from service.access.rights import RIGHTS
from service.audit.denials import Denials
from service.audit.entry import Entry
from service.audit.log import AuditLog
from service.call import Call, Noted

__all__ = ["CHANGES", "CallRecorder"]

# What changes something for good, and would not do the same again when it is called again.
# One crop over REST is none: sent again after an error it is found to be there.
CHANGES = frozenset(
    {
        "SearchService/LearnTravelTimes",
        "GalleryService/CreateCamera",
        "GalleryService/DeleteCrop",
        "ModelService/RegisterModel",
        "ModelService/StageModel",
        "ModelService/PromoteModel",
        "ModelService/RollbackModel",
        "ModelService/RetireModel",
        "ModelService/PauseFilling",
        "ModelService/ResumeFilling",
        "AdaptationService/StartAdaptationRun",
        "AdaptationService/ReportAdaptationRun",
        "AdaptationService/FinishAdaptationRun",
        "AdminService/CreateApiKey",
        "AdminService/RevokeApiKey",
        "AdminService/CreateErasure",
        "AdminService/ConfirmErasure",
        "AdminService/CancelErasure",
        "AdminService/UpdateCameraRetention",
    }
)
# A caller who is refused before anything is looked at may come back without end.
_REFUSED = frozenset(
    {"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"}
)
_OK = "OK"


class CallRecorder:
    """Stands at the gate.

    Args:
        log: The chain.
        denials: Sums up who is not let in.
    """

    def __init__(self, log: AuditLog, denials: Denials) -> None:
        self._log = log
        self._denials = denials

    async def began(self, call: Call, *, streams: bool) -> None:
        """Record that a change or a stream begins; nothing for what only reads.

        Raises:
            Unavailable: it cannot be recorded, so it must not happen.
        """
        if streams or call.method in CHANGES:
            await self._log.record(_entry(call, event="began"), beginning=True)
            call.announced, call.announced_in = True, call.gallery

    async def ended(self, call: Call, outcome: str) -> None:
        """Record what came of a call; its answer is held until this returns.

        Raises:
            Unavailable: it cannot be recorded, so the answer must not be given.
        """
        if call.closed:
            return
        if not call.admitted and (call.principal is None or outcome == "RESOURCE_EXHAUSTED"):
            call.closed = True
            if outcome in _REFUSED:
                who = call.formerly if call.principal is None else call.principal.name
                self._denials.add(
                    call.peer,
                    outcome,
                    reason=call.reason or outcome,
                    principal=who,
                    method=call.method,
                    protocol=call.protocol,
                )
            return
        if call.method not in RIGHTS:  # nothing was reached
            call.closed = True
            return
        call.closed = True
        entries = _entries(call, event="ended" if call.announced else "call", outcome=outcome)
        if call.announced or outcome != _OK:
            # What is no answer, or was done already, is told to the caller whatever happens here.
            await _together(self._log.settle, entries)
        else:
            try:
                await _together(self._log.record, entries)
            except Unavailable as error:
                call.fail(error)
                # It was asked, and that is to be known, too.
                for entry in _entries(call, event="call", outcome="UNAVAILABLE"):
                    self._log.owe(entry)
                raise


async def _together(store: Callable[[Entry], Awaitable[None]], entries: list[Entry]) -> None:
    if len(entries) == 1:
        await store(entries[0])
    else:
        await asyncio.gather(*(store(entry) for entry in entries))


def _entries(call: Call, *, event: str, outcome: str) -> list[Entry]:
    """One for each gallery, with what is of that one: who reads its audit must not miss what others
    stand beside, nor read of these, nor find a beginning there without its end.
    """
    entries = [
        _entry(call, event=event, outcome=outcome, gallery=name, notes={**call.notes, **noted})
        for name, noted in (call.galleries | call.unfound).items()
    ] or [_entry(call, event=event, outcome=outcome)]
    named = call.announced_in
    if named and named not in {entry.gallery for entry in entries}:
        entries.append(_entry(call, event=event, outcome=outcome, gallery=named, notes={}))
    return entries


def _entry(
    call: Call,
    *,
    event: str,
    outcome: str = "",
    gallery: str | None = None,
    notes: Mapping[str, Noted] | None = None,
) -> Entry:
    principal = call.principal
    facts: dict[str, Any] = {
        "event": event,
        "request_id": call.request_id,
        "protocol": call.protocol,
        "peer": call.peer,
        "purpose": call.purpose,
        "principal_kind": "" if principal is None else principal.kind,
        "notes": dict(call.notes if notes is None else notes),
    }
    if len(call.galleries) > 1:
        facts["galleries"] = len(call.galleries)
    if call.certificate:
        facts["certificate"] = call.certificate
    if outcome:
        facts["outcome"] = outcome
        if outcome != _OK:
            facts["reason"] = call.reason or outcome
            if call.named:
                facts["field"] = call.named
        facts["micros"] = int((perf_counter() - call.begun) * 1e6)
        if not call.admitted:
            facts["refused"] = True
    return Entry(
        action=call.method,
        principal="" if principal is None else principal.name,
        gallery=call.gallery if gallery is None else gallery,
        facts=facts,
    )
