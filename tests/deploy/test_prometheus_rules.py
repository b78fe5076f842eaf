"""The rules as promtool sees them, and that none of the alerts is untested or unexplained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.queries import PROMTOOL, needs_promtool, unknown

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"
RULES = sorted(FOLDER.glob("*.rules.yml"))
TESTS = sorted((FOLDER / "tests").glob("*.yml"))


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


@needs_promtool
@pytest.mark.parametrize("path", [*RULES, FOLDER / "prometheus.yml"], ids=lambda path: path.name)
def test_promtool_accepts(path: Path) -> None:
    what = ["config", "--syntax-only"] if path.name == "prometheus.yml" else ["rules"]
    done = subprocess.run(
        [PROMTOOL, "check", *what, str(path)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_every_case_of_promtool_holds(path: Path) -> None:
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(path)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    fires: set[str] = set()
    silent: set[str] = set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for expected in case["alert_rule_test"]:
                name = expected["alertname"]
                (fires if expected["exp_alerts"] else silent).add(name)
    assert fires == set(ALERTS)
    assert silent == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(name: str) -> None:
    rule = ALERTS[name]
    assert re.fullmatch(r"Resight[A-Z][A-Za-z]+", name)
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert notes["summary"]
    assert notes["description"].endswith(".")
    assert notes["runbook_url"] == f"docs/operations.md#{name.lower()}"
    assert f"| `{name}` | {rule['labels']['severity']} |" in (FOLDER / "README.md").read_text()


def test_no_name_is_given_twice() -> None:
    names = [rule.get("alert") or rule["record"] for rule in rules()]
    assert len(names) == len(set(names))


def test_expressions_name_series_and_records_that_there_are() -> None:
    assert unknown(rule["expr"] for rule in rules()) == []
    records = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for rule in rules() for name in re.findall(r"\bresight:[\w:]+", rule["expr"])}
    assert used <= records
