"""The boards: what is committed, whether Grafana can read it, and whether Prometheus can."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.queries import needs_promtool, parsed, unknown

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "deploy/grafana").glob("*.json"))
# Units of panels as Grafana 12 names them (its list of value formats).
UNITS = {"none", "short", "s", "bytes", "percentunit", "reqps", "ops"}


def boards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in FILES]


def queries() -> list[str]:
    return [
        target["expr"]
        for board in boards()
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def test_the_files_are_what_the_builder_writes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.boards", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=240)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in FILES}
    assert len(FILES) == 4


@pytest.mark.parametrize("board", boards(), ids=lambda board: board["uid"])
def test_a_board_is_whole(board: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))
    variables = {one["name"] for one in board["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))
        for target in panel["targets"]:
            used = set(re.findall(r"\$(\w+)", target["expr"]))
            assert used <= variables, target["expr"]
            assert "job" in used, target["expr"]
    assert "datasource" in variables


def test_no_two_boards_share_an_id() -> None:
    assert len({board["uid"] for board in boards()}) == len(FILES)


def test_queries_name_series_and_records_that_there_are() -> None:
    assert unknown(queries()) == []
    groups = yaml.safe_load((ROOT / "deploy/prometheus/resight-recording.rules.yml").read_text())[
        "groups"
    ]
    records = {rule["record"] for group in groups for rule in group["rules"]}
    assert {name for query in queries() for name in re.findall(r"resight:[\w:]+", query)} <= records


def test_legends_name_labels_that_the_query_keeps() -> None:
    for board in boards():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                kept = re.findall(r"\bby \(([^)]*)\)", target["expr"])
                wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                if kept:
                    assert wanted <= {name.strip() for name in kept[0].split(",")}, target


@needs_promtool
def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    # Choices of a board stand for regular expressions.
    assert parsed([re.sub(r"\$\w+", ".*", query) for query in queries()], tmp_path) == ""
