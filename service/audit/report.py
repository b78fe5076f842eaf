"""The transparency report: who searched what for which purpose how often, what was shown, changed
and denied.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from typing import Any

from service.access.purposes import PURPOSEFUL
from service.audit.denials import host_of
from service.audit.entry import CHAIN_BEGAN, CHAIN_ENDED, DENIED, stamped
from service.audit.operation import PREFIX
from service.audit.reading import ReadEntry
from service.audit.recorder import CHANGES
from service.audit.tables import Table, html_text
from service.audit.verifying import Verdict

__all__ = ["Tally", "Told", "html_page"]

_VIEWS = frozenset({"GalleryService/GetCrop", "GalleryService/ListCrops"})
_SEARCHES = PURPOSEFUL - _VIEWS
_DENIED = frozenset({"PERMISSION_DENIED", "UNAUTHENTICATED"})
_OK = "OK"
# What is told of parts of a call that were not refused.
_PARTS = ("queries", "accepted", "duplicate")

_STYLE = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:76em;padding:0 1em}"
    "table{border-collapse:collapse;margin:.5em 0}"
    "th,td{border:1px solid #bbb;padding:.2em .5em;text-align:left;vertical-align:top;"
    "overflow-wrap:anywhere}th{background:#eee}.wrong{color:#a00;font-weight:bold}"
)


@dataclass(frozen=True, slots=True)
class Told:
    """What the head of a report says."""

    source: str
    made: datetime
    start_time: datetime | None
    end_time: datetime | None
    verdict: Verdict
    gallery: str = ""


@dataclass(slots=True)
class _Use:
    answered: int = 0
    failed: int = 0
    matches: int = 0
    first: str = ""
    last: str = ""

    def add(self, time: str, outcome: str, notes: Mapping[str, Any]) -> None:
        answered = outcome == _OK and _is_answered(notes)
        self.answered += answered
        self.failed += not answered
        self.matches += _found(notes)
        self.first = self.first or time
        self.last = time

    def take_back(self, notes: Mapping[str, Any]) -> None:
        answered = _is_answered(notes)
        self.answered -= answered
        self.failed -= not answered
        self.matches -= _found(notes)


@dataclass(slots=True)
class Tally:
    """Counts entries, each once; a report is its tables.

    Attributes:
        refused: Calls that were told UNAVAILABLE, by request and gallery. Such a one may have an
            entry of its answer as well, stored too late: ``take_back`` finds it.
    """

    entries: int = 0
    galleries: set[str] = field(default_factory=set)
    chains: set[str] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)
    _searches: dict[tuple[str, ...], _Use] = field(default_factory=lambda: defaultdict(_Use))
    _views: dict[tuple[str, ...], _Use] = field(default_factory=lambda: defaultdict(_Use))
    _others: dict[tuple[str, ...], _Use] = field(default_factory=lambda: defaultdict(_Use))
    _denied: Counter[tuple[str, ...]] = field(default_factory=Counter)
    _changes: list[list[str]] = field(default_factory=list)
    _open: dict[str, list[str]] = field(default_factory=dict)

    def add_all(self, entries: Iterable[ReadEntry]) -> None:
        """Count entries, oldest first."""
        for entry in entries:
            self._add(entry)

    def take_back(self, entries: Iterable[ReadEntry]) -> None:
        """Count no longer as answered what was refused; needed when there are ``refused``.

        Args:
            entries: All of them once more.
        """
        for entry in entries:
            said = entry.said
            here = (_said(said, "request_id"), entry.gallery)
            if here not in self.refused or _told(said) != ("call", _OK):
                continue
            notes = _notes(said)
            if (use := self._use(entry)) is not None:
                use.take_back(notes)
            if isinstance(parts := notes.get("denied"), int):
                self._denied[_denied_parts(entry, notes)] -= parts

    def tables(self) -> Iterator[Table]:
        """What was counted."""
        by = ("purpose", "principal", "gallery", "what")
        use = ("answered", "refused or failed")
        span = ("first", "last")
        yield Table("searches", "Searches by purpose", (*by, *use, "matches", *span),
                    _rows(self._searches))  # fmt: skip
        yield Table("views", "Crops shown, by purpose", (*by, *use, "crops listed", *span),
                    _rows(self._views))  # fmt: skip
        yield Table("denied", "Denied attempts",
                    ("reason", "code", "principal", "peer", "what", "attempts"),
                    [[*key, str(count)] for key, count in sorted(self._denied.items())],
                    "Of callers that nobody knows, those of a minute are one entry.")  # fmt: skip
        yield Table("changes", "Changes",
                    ("time", "principal", "gallery", "what", "purpose", "outcome", "about"),
                    self._changes)  # fmt: skip
        yield Table("unfinished", "Changes and streams without an end",
                    ("time", "principal", "gallery", "what", "about", "request"),
                    list(self._open.values()),
                    "They began within this time; the process died, or they have not ended "
                    "yet.")  # fmt: skip
        yield Table("other_calls", "Every other call",
                    ("what", "principal", "gallery", *use, "crops", *span),
                    _rows(self._others))  # fmt: skip

    def _add(self, entry: ReadEntry) -> None:
        self.entries += 1
        said, time = entry.said, stamped(entry.record_time)
        self.chains.add(entry.chain_id)
        if entry.gallery:
            self.galleries.add(entry.gallery)
        if entry.action in (CHAIN_BEGAN, CHAIN_ENDED):
            return
        outcome = _said(said, "outcome")
        if entry.action == DENIED:
            who = (entry.principal, _said(said, "peer"), _said(said, "method"))
            key = (outcome, _said(said, "reason"), *who)
            attempts = said.get("attempts")
            self._denied[key] += attempts if isinstance(attempts, int) else 1
            return
        request = _said(said, "request_id")
        notes = _notes(said)
        if _told(said) == ("call", "UNAVAILABLE") and request:
            self.refused.add((request, entry.gallery))
        if said.get("event") == "began":
            what = (entry.gallery, entry.action, _about(notes))
            self._open[request] = [time, entry.principal, *what, request]
            return
        self._open.pop(request, None)
        parts = notes.get("denied")
        if outcome in _DENIED:
            self._denied[outcome, _said(said, "reason"), *_who(entry)] += 1
        elif isinstance(parts, int):
            self._denied[_denied_parts(entry, notes)] += parts
        self._count(entry, time, outcome, notes)

    def _count(self, entry: ReadEntry, time: str, outcome: str, notes: Mapping[str, Any]) -> None:
        if (use := self._use(entry)) is not None:
            use.add(time, outcome, notes)
        else:
            purpose = _said(entry.said, "purpose")
            what = (entry.gallery, entry.action, purpose, outcome, _about(notes))
            self._changes.append([time, entry.principal, *what])

    def _use(self, entry: ReadEntry) -> _Use | None:
        """What it is counted under; None for a change."""
        key = (_said(entry.said, "purpose"), entry.principal, entry.gallery, entry.action)
        if entry.action in _SEARCHES:
            return self._searches[key]
        if entry.action in _VIEWS:
            return self._views[key]
        if entry.action in CHANGES or entry.action.startswith(("service/", PREFIX)):
            return None
        return self._others[entry.action, entry.principal, entry.gallery]


def html_page(told: Told, tally: Tally, tables: Iterable[Table]) -> str:
    """The report as one HTML file that needs nothing else."""
    verdict = told.verdict
    span = " to ".join(
        "open" if time is None else stamped(time) for time in (told.start_time, told.end_time)
    )
    if told.gallery:
        checked = "The audit of all galleries was verified"
    else:
        checked = (
            f"{verdict.chains} chains, {verdict.entries} entries, {verdict.checkpoints} "
            f"checkpoints; {verdict.unsigned_entries} entries not signed yet"
        )
    if not verdict.faults:
        state = "<p>Nothing is wrong with the audit.</p>\n"
    elif told.gallery:
        state = (
            '<p class="wrong">The audit is not sound; `resight audit verify` names what is '
            "wrong.</p>\n"
        )
    else:
        first = verdict.faults[0]
        place = f" in chain {escape(first.chain_id)} at entry {first.sequence}"
        state = (
            f'<p class="wrong">The audit is not sound: {len(verdict.faults)} faults, the first'
            f"{place if first.chain_id else ''}: {escape(first.description)}</p>\n"
        )
    of_gallery = f", gallery {escape(told.gallery)} alone" if told.gallery else ""
    if not verdict.keys_given:
        state += "<p>It was checked against the keys that it holds itself.</p>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<title>Transparency report</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Transparency report</h1>\n"
        f"<p>Of {escape(told.source)}, {escape(span)}{of_gallery}; made {stamped(told.made)} from "
        f"{tally.entries} entries.</p>\n<p>{checked}.</p>\n{state}"
        + "".join(html_text(table) for table in tables)
        + "</body>\n</html>\n"
    )


def _rows(uses: Mapping[tuple[str, ...], _Use]) -> list[list[str]]:
    return [
        [*key, str(use.answered), str(use.failed), str(use.matches), use.first, use.last]
        for key, use in sorted(uses.items())
    ]


def _about(notes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(notes.items()))


def _notes(said: Mapping[str, Any]) -> Mapping[str, Any]:
    notes = said.get("notes")
    return notes if isinstance(notes, dict) else {}


def _is_answered(notes: Mapping[str, Any]) -> bool:
    """Not a call of many parts that were all refused."""
    return not notes.get("failed") or any(notes.get(name) for name in _PARTS)


def _found(notes: Mapping[str, Any]) -> int:
    found = notes.get("matches", notes.get("crops", 0))
    return found if isinstance(found, int) else 0


def _told(said: Mapping[str, Any]) -> tuple[str, str]:
    return _said(said, "event"), _said(said, "outcome")


def _who(entry: ReadEntry) -> tuple[str, str, str]:
    return entry.principal, host_of(_said(entry.said, "peer")), entry.action


def _denied_parts(entry: ReadEntry, notes: Mapping[str, Any]) -> tuple[str, ...]:
    return ("PERMISSION_DENIED", _denied_codes(notes), *_who(entry))


def _denied_codes(notes: Mapping[str, Any]) -> str:
    """Why parts of a call were denied; others of its parts may have failed as well."""
    reasons = notes.get("reasons")
    told = [str(each) for each in reasons] if isinstance(reasons, list) else []
    return ", ".join(each for each in told if each.endswith("_NOT_ALLOWED"))


def _said(said: Mapping[str, Any], name: str) -> str:
    value = said.get(name, "")
    return value if isinstance(value, str) else ""
