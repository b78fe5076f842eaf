"""Whoever is woken finds what to do: an entry for every alert, and queries that parse."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT, anchors, pages
from tests.docs.runbook import (
    RUNBOOK,
    Alert,
    alerts,
    entries,
    known_metrics,
    named_metrics,
    queries,
)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_has_an_entry_that_says_what_to_do(alert: Alert) -> None:
    page, _, anchor = alert.runbook_url.rpartition("#")
    # Relative to the repository, or the address at which a deployment publishes the page.
    assert page.endswith("docs/operations.md")
    assert anchor == alert.name.lower()
    assert anchor in anchors(RUNBOOK)
    entry = entries()[alert.name]
    assert entry.strip().startswith(f"**{alert.severity}** · ")
    looks = re.findall(r"^(\d)\. ", entry, re.MULTILINE)
    assert looks[:3] == ["1", "2", "3"]
    assert "*Mend.*" in entry
    assert "*Escalate*" in entry


def test_no_entry_is_for_an_alert_that_is_gone() -> None:
    assert entries()
    assert set(entries()) <= {alert.name for alert in alerts()}


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.name)
def test_metrics_that_a_page_names_are_exported(page: Path) -> None:
    known = known_metrics()
    unknown = [
        f"{page.relative_to(ROOT)}:{line}: {name}"
        for line, query in queries(page)
        for name in named_metrics(query)
        if name not in known
    ]
    assert unknown == []


def test_queries_of_the_runbook_parse(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on the PATH")
    asked = [query for _, query in queries(RUNBOOK) if not query.isidentifier()]
    assert len(asked) > 20
    rules = [{"record": f"page:query:{n}", "expr": query} for n, query in enumerate(asked)]
    file = tmp_path / "queries.rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "page", "rules": rules}]}, width=10_000))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
