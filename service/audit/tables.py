"""A table of a report, and its two forms: CSV and HTML.

Purposes, names and reasons are whatever somebody wrote, so everything is escaped for where it goes:
in HTML as text, in CSV so that no spreadsheet takes a cell for a formula.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Table", "csv_text", "html_text"]

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of texts.

    Args:
        name: Of its CSV file.
        title: For people.
        columns: Their names.
        rows: As long as ``columns`` each.
        note: What a reader should know of it.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]] = field(default_factory=list)
    note: str = ""


def csv_text(table: Table) -> str:
    """RFC 4180; a cell that a spreadsheet would compute begins with an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(table.columns)
    writer.writerows([_harmless(cell) for cell in row] for row in table.rows)
    return out.getvalue()


def html_text(table: Table) -> str:
    """A section with a heading and a table."""
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n"
        for row in table.rows
    )
    note = f"<p>{escape(table.note)}</p>\n" if table.note else ""
    if not table.rows:
        body = "<p>None.</p>\n"
    else:
        body = f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n"
    name = escape(table.name, quote=True)
    return f'<section id="{name}">\n<h2>{escape(table.title)}</h2>\n{note}{body}</section>\n'


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
