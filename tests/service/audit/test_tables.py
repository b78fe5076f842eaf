"""What somebody wrote stays text, in HTML and in a spreadsheet."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.audit.tables import Table, csv_text, html_text

_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, _attrs: object) -> None:
        self.tags.add(tag)
        if tag == "td":
            self._inside = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.cells[-1] += data


@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=4))
def test_cells_come_back_as_they_were(rows: list[tuple[str, str]]) -> None:
    table = Table("t", "<b>", ("a", "b"), rows, "<i>")
    read = _Cells()
    read.feed(html_text(table))
    assert read.tags <= {"section", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert read.cells == [cell for row in rows for cell in row]
    _, *found = csv.reader(io.StringIO(csv_text(table)))
    plain = [[cell.removeprefix("'") for cell in row] for row in found]
    assert plain == [[cell.removeprefix("'") for cell in row] for row in rows]


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_no_spreadsheet_takes_a_cell_for_a_formula(cell: str) -> None:
    [[_], [found]] = csv.reader(io.StringIO(csv_text(Table("t", "T", ("a",), [[cell]]))))
    assert found == f"'{cell}"
