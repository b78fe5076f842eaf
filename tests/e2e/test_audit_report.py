"""The transparency report and the export, compared with what a client counted for itself."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.e2e import forked

G = "/v1/galleries/default"
PURPOSES = ("missing person", "<script>alert(1)</script>", "=HYPERLINK(1)", "Fahrräder & Co")


class Sections(HTMLParser):
    """The rows of every table of a page, by section."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.tags: Counter[str] = Counter()
        self._rows: list[list[str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        if tag == "section":
            self._rows = self.rows.setdefault(dict(attrs)["id"], [])
        elif tag == "tr":
            self._rows.append([])
        elif tag == "td":
            self._rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._rows[-1][-1] += data


def audit(*arguments: str, environment: dict[str, str]) -> dict[str, Any]:
    done = forked.completed(["audit", *arguments, "--json"], os.environ | environment, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def used(
    start_service: Any, tmp_path: Path, catalog: dict[str, str], make_jpeg: Callable[..., bytes]
) -> Any:
    """A service that was used, and what was done: calls by purpose and kind."""
    counted: Counter[tuple[str, str]] = Counter()
    with (
        start_service(tmp_path / "data", **catalog) as service,
        httpx.Client(base_url=f"http://{service.rest}", timeout=120) as client,
    ):
        client.post(f"{G}/cameras", json={"camera_id": "c1"}).raise_for_status()
        crops = []
        for number in range(3):
            answer = client.post(
                f"{G}/crops",
                files={"image": ("crop.jpg", make_jpeg(number))},
                data={"camera_id": "c1", "capture_time": f"2026-02-01T00:{number:02d}:00Z"},
            )
            crops.append(answer.json()["crop_id"])
        for turn, purpose in enumerate(PURPOSES):
            headers = {"resight-purpose": quote(purpose)}
            for _ in range(turn + 1):
                found = client.post(f"{G}/search", json={"crop_id": crops[0]}, headers=headers)
                counted[purpose, "searched"] += found.is_success
                counted[purpose, "matches"] += len(found.json()["matches"])
            for _ in range(2 * turn):
                seen = client.get(f"{G}/crops/{crops[1]}/image", headers=headers)
                counted[purpose, "seen"] += seen.is_success
            nothing = client.post(f"{G}/search", json={"crop_id": "nothing"}, headers=headers)
            counted[purpose, "failed"] += nothing.is_error
        client.put(f"{G}/cameras/c1/retention", json={"retention_days": 9000}).raise_for_status()
        client.delete(f"{G}/crops/{crops[2]}").raise_for_status()
        yield service, counted, crops


def test_the_report_counts_what_the_client_counted(
    used: Any, tmp_path: Path, catalog: dict[str, str]
) -> None:
    service, counted, crops = used
    for number, where in enumerate((
        ("--data", str(tmp_path / "data")), ("--target", service.grpc),
    )):  # fmt: skip
        page, folder = tmp_path / f"report-{number}.html", tmp_path / f"csv-{number}"
        told = audit(
            "report", *where, "--output", str(page), "--csv", str(folder), environment=catalog
        )
        assert told["sound"] is True
        shown = Sections()
        shown.feed(page.read_text("utf-8"))
        assert shown.tags["script"] == 0
        for name in told["tables"]:
            with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
                _, *rows = csv.reader(file)
            html = [row for row in shown.rows[name] if row]
            assert [[cell.removeprefix("'") for cell in row] for row in rows] == html
        searches = {row[0]: row for row in shown.rows["searches"] if row}
        views = {row[0]: row for row in shown.rows["views"] if row}
        for purpose in PURPOSES:
            row = searches[purpose]
            assert row[1:4] == ["local", "default", "SearchService/Search"]
            assert [int(cell) for cell in row[4:7]] == [
                counted[purpose, "searched"], counted[purpose, "failed"],
                counted[purpose, "matches"],
            ]  # fmt: skip
            if counted[purpose, "seen"]:
                assert int(views[purpose][4]) == counted[purpose, "seen"]
        assert counted[PURPOSES[3], "searched"] == 4
        changes = {row[3]: row for row in shown.rows["changes"] if row}
        assert crops[2] in changes["GalleryService/DeleteCrop"][6]
        assert changes["AdminService/UpdateCameraRetention"][5] == "OK"
        assert ["default", "c1", "", "9000"] in shown.rows["camera_retention"]
        assert any(service.model in row for row in shown.rows["models"])
        policies = {row[2]: row[3] for row in shown.rows["policies"] if row}
        assert policies["images_stored"] == "true"
        assert (page.stat().st_mode & 0o077) == 0


def test_an_export_goes_on_where_the_last_one_ended(
    used: Any, tmp_path: Path, catalog: dict[str, str]
) -> None:
    service, counted, _ = used
    lines, cursor = tmp_path / "audit.jsonl", tmp_path / "cursor"
    where = ("--data", str(tmp_path / "data"), "--output", str(lines), "--cursor", str(cursor))
    first = audit("export", *where, environment=catalog)["entries"]
    assert first > sum(counted[key] for key in counted if key[1] in ("searched", "seen"))
    assert audit("export", *where, environment=catalog)["entries"] == 0
    with httpx.Client(base_url=f"http://{service.rest}") as client:
        client.get(f"{G}/stats", headers={"resight-purpose": "after"}).raise_for_status()
    assert audit("export", *where, environment=catalog)["entries"] == 1
    said = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    assert said[-1]["entry"]["purpose"] == "after"
    assert json.loads(said[-1]["body"]) == said[-1]["entry"]
    places = [(line["chain_id"], line["sequence"]) for line in said]
    assert places == [(said[0]["chain_id"], number + 1) for number in range(first + 1)]
