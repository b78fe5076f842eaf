"""What a report tells of entries and of a verdict."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from service.audit.chain_check import Fault
from service.audit.report import Tally, Told, html_page
from service.audit.verifying import Verdict

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("ab12", 7, "its digest is wrong"), " in chain ab12 at entry 7: its digest is wrong"),
        (Fault("", 0, "the stored public key of x is not its key"),
         ": the stored public key of x is not its key"),
    ],
)  # fmt: skip
def test_a_fault_without_a_place_has_none_in_the_report(fault: Fault, said: str) -> None:
    verdict = Verdict()
    verdict.faults.append(fault)
    page = html_page(Told("data", NOON, None, None, verdict), Tally(), [])
    found = re.search(r'class="wrong">The audit is not sound: 1 faults, the first(.*?)</p>', page)
    assert found is not None
    assert found[1] == said
