"""Whoever is limited to a gallery reads its audit, and nothing of others; a report of a gallery or
a time is of these alone. Over gRPC, REST and the command line; counted from the database.
"""

from __future__ import annotations

import csv
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import ParseDict

from resight.errors import PermissionDenied
from resight.v1 import admin_service_pb2 as messages
from service.access import direct
from service.audit.share import ELSEWHERE
from service.domain.api_key import KeyRequest
from service.domain.principal import SCOPES
from service.settings import load_settings
from tests.e2e.test_service_keys import ON, connected, first_key, resight

OURS, FOREIGN = "site-b", "site-a"
# What only somebody of the foreign gallery may read.
FOREIGN_WORDS = (FOREIGN, "camera-of-a", "purpose-of-a", "reason-of-a")


@dataclass
class Used:
    """A service in which two galleries were used, and what each key may."""

    service: Any
    data: Path
    whole: str
    ours: str
    foreign: str
    auditor: str
    # When everything was done.
    until: datetime

    @property
    def foreign_words(self) -> tuple[str, ...]:
        """With the name of the foreign gallery's key."""
        return (*FOREIGN_WORDS, self.foreign.split("_")[1])

    def rows(self, where: str = "1 = 1") -> list[dict[str, Any]]:
        """Entries as the database has them."""
        with closing(sqlite3.connect(self.data / "catalog.sqlite", timeout=60)) as found:
            asked = found.execute(f"SELECT body FROM audit_entries WHERE {where}")  # noqa: S608
            return [json.loads(body) for (body,) in asked]

    def asked(
        self, verb: str, path: str, key: str, purpose: str = "", **more: Any
    ) -> httpx.Response:
        """A REST call."""
        headers = {"authorization": f"Bearer {key}"} | (
            {"resight-purpose": purpose} if purpose else {}
        )
        address = f"http://{self.service.rest}{path}"
        return httpx.request(verb, address, headers=headers, timeout=120, **more)

    def report(self, name: str, *options: str, key: str = "") -> tuple[dict[str, Any], str]:
        """The rows of a report's CSV files, and all its text."""
        page, folder = self.data.parent / f"{name}.html", self.data.parent / name
        where = () if key else ("--data", str(self.data))
        target = ("--target", self.service.grpc) if key else ()
        done = resight(
            "audit", "report", *where, *target, *options, "--output", str(page),
            "--csv", str(folder), **({"RESIGHT_API_KEY": key} if key else {}),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        tables = {}
        for path in folder.iterdir():
            with path.open(encoding="utf-8", newline="") as file:
                tables[path.stem] = list(csv.DictReader(file))
        text = page.read_text("utf-8") + "".join(each.read_text() for each in folder.iterdir())
        return tables, text


def use(used: Used, gallery: str, key: str, searches: int, make_jpeg: Any) -> None:
    """A camera with retention, two crops, searches, and one crop erased."""
    letter, place = gallery[-1], f"/v1/galleries/{gallery}"

    def done(verb: str, path: str, **more: Any) -> Any:
        answer = used.asked(verb, f"{place}{path}", key, purpose=f"purpose-of-{letter}", **more)
        answer.raise_for_status()
        return answer.json()

    camera = f"camera-of-{letter}"
    done("POST", "/cameras", json={"camera_id": camera})
    crops = []
    for number in range(2):
        files = {"image": ("crop.jpg", make_jpeg(number))}
        told = {"camera_id": camera, "capture_time": f"2026-02-01T00:{number:02d}:00Z"}
        crops.append(done("POST", "/crops", files=files, data=told)["crop_id"])
    for _ in range(searches):
        done("POST", "/search", json={"crop_id": crops[0]})
    done("PUT", f"/cameras/{camera}/retention", json={"retention_days": 9000})
    body = {"subject": {"crop_ids": [crops[1]]}, "reason": f"reason-of-{letter}"}
    erasure = done("POST", "/erasures", json=body)["erasure_id"]
    deadline = time.monotonic() + 120
    while done("POST", f"/erasures/{erasure}/confirm", json={"crops": 1})["state"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def used(
    start_service: Any, tmp_path_factory: pytest.TempPathFactory, make_jpeg: Callable[..., bytes]
) -> Iterator[Used]:
    data = tmp_path_factory.mktemp("limited") / "data"
    whole = first_key(data)

    def limited(gallery: str, *scopes: str) -> str:
        asked = KeyRequest(gallery, scopes=scopes or SCOPES, galleries=(gallery,))
        return direct.create(load_settings({"data_dir": data}), asked).text

    ours, foreign = limited(OURS), limited(FOREIGN)
    auditor = limited(OURS, "audit")
    with start_service(data, **ON) as service:
        found = Used(service, data, whole, ours, foreign, auditor, datetime.now(UTC))
        use(found, FOREIGN, foreign, 5, make_jpeg)
        use(found, OURS, ours, 2, make_jpeg)
        refused = found.asked("GET", f"/v1/galleries/{FOREIGN}/crops", ours)
        assert refused.status_code == 403
        found.until = datetime.now(UTC)
        yield found


def test_the_verdict_counts_their_own_entries(used: Used) -> None:
    own = len(used.rows(f"gallery = '{OURS}'"))
    assert own < len(used.rows(f"gallery = '{FOREIGN}'"))
    with connected(used.service.grpc, used.ours) as connection:
        told = connection.admin.VerifyAudit(messages.VerifyAuditRequest())
    assert (told.chains, told.entries, list(told.faults)) == (1, own, [])
    assert told.checkpoints <= own
    assert told.unsigned_entries <= own
    answer = used.asked("POST", "/v1/audit/verify", used.ours).json()
    assert (answer["chains"], answer["entries"], answer["faults"]) == (1, own, [])
    with connected(used.service.grpc, used.whole) as connection:
        everything = connection.admin.VerifyAudit(messages.VerifyAuditRequest())
    assert everything.entries > own + len(used.rows(f"gallery = '{FOREIGN}'"))


@pytest.mark.parametrize(
    "asked",
    [{}, {"gallery": FOREIGN}, {"action": "audit/began"}, {"principal": "operator:root"}],
    ids=str,
)
def test_entries_of_others_are_refused(used: Used, asked: dict[str, str]) -> None:
    request = ParseDict(asked, messages.ListAuditEntriesRequest())
    with pytest.raises(PermissionDenied), connected(used.service.grpc, used.ours) as connection:
        connection.admin.ListAuditEntries(request)
    assert used.asked("GET", "/v1/audit", used.ours, params=asked).status_code == 403


@pytest.mark.parametrize("action", ["", "SearchService/Search", "audit/began"])
def test_entries_are_those_of_the_gallery_and_action(used: Used, action: str) -> None:
    where = f"gallery = '{OURS}'" + (f" AND action = '{action}'" if action else "")
    expected = sorted(json.dumps(body, sort_keys=True) for body in used.rows(where))
    assert bool(expected) == (action != "audit/began")
    request = messages.ListAuditEntriesRequest(gallery=OURS, action=action, page_size=1000)
    with connected(used.service.grpc, used.ours) as connection:
        listed = [entry.body for entry in connection.admin.ListAuditEntries(request).entries]
    # What lists the audit of a gallery stands in it.
    told = [json.loads(body) for body in listed]
    told = [body for body in told if body["action"] != "AdminService/ListAuditEntries"]
    expected = [body for body in expected if "AdminService/ListAuditEntries" not in body]
    assert sorted(json.dumps(body, sort_keys=True) for body in told) == expected
    params = {"gallery": OURS, "action": action}
    answer = used.asked("GET", "/v1/audit", used.ours, params={**params, "page_size": 1000}).json()
    assert [entry["body"] for entry in answer["entries"]][: len(listed)] == listed
    assert not [word for word in used.foreign_words for body in listed if word in body]


@pytest.mark.parametrize("limited", [True, False], ids=["their key", "the catalog"])
def test_a_report_of_a_gallery_tells_nothing_of_others(used: Used, limited: bool) -> None:
    name = f"of-gallery-{limited}"
    tables, text = used.report(name, "--gallery", OURS, key=used.ours if limited else "")
    assert not [word for word in used.foreign_words if word in text]
    counted = Counter(
        (body["purpose"], body["principal"])
        for body in used.rows(f"gallery = '{OURS}' AND action = 'SearchService/Search'")
    )
    [searches] = tables["searches"]
    assert counted == {(searches["purpose"], searches["principal"]): int(searches["answered"])}
    assert [row["camera"] for row in tables["camera_retention"]] == ["camera-of-b"]
    assert [row["reason"] for row in tables["erasures"]] == ["reason-of-b"]
    assert {row["gallery"] for row in tables["models"]} == {OURS}
    if limited:
        assert not tables["policies"]
        assert not tables["processes"]
        assert text.count("not shown: ") == 2
    else:
        assert {row["setting"] for row in tables["policies"]} >= {"retention_days", "purposes"}
        assert used.service.model in {row["model"] for row in tables["models"]}


def test_whoever_reads_the_audit_alone_is_told_what_is_not_shown(used: Used) -> None:
    tables, text = used.report("auditor", "--gallery", OURS, key=used.auditor)
    assert [row["gallery"] for row in tables["searches"]] == [OURS]
    # Whoever may read the audit may read erasures.
    assert [row["reason"] for row in tables["erasures"]] == ["reason-of-b"]
    for name in ("camera_retention", "models", "adaptation_runs", "policies", "processes"):
        assert not tables[name]
    assert text.count("not shown: ") == 5
    assert not [word for word in used.foreign_words if word in text]


def test_a_report_of_a_time_says_what_held_and_what_happened(used: Used) -> None:
    def times(**span: datetime) -> list[str]:
        return [part for name, time in span.items() for part in (f"--{name}", time.isoformat())]

    everything, _ = used.report("all", "--gallery", FOREIGN)
    [erased] = everything["erasures"]
    after = datetime.fromisoformat(erased["complete"]) + timedelta(microseconds=1)
    later, _ = used.report("later", *times(start=used.until + timedelta(days=1)))
    between, _ = used.report("between", "--gallery", FOREIGN, *times(start=after))
    for tables in (later, between):
        assert not tables["erasures"]
        assert not tables["searches"]
        assert [row["camera"] for row in tables["camera_retention"]].count("camera-of-a") == 1
        # The service began before, and has not ended.
        assert "9000" in {row["retention days"] for row in tables["camera_retention"]}
        kept = [row["value"] for row in tables["policies"] if row["setting"] == "images_stored"]
        assert kept == ["true"]
        assert [row["ended"] for row in tables["processes"]] == [""]
    until, _ = used.report("until", "--gallery", FOREIGN, *times(end=after))
    assert [row["erasure"] for row in until["erasures"]] == [erased["erasure"]]
    # A service that is asked with a key without limits says the same.
    for name, span, tables in (("start", after, between), ("end", after, until)):
        told, _ = used.report(
            f"asked-{name}", "--gallery", FOREIGN, *times(**{name: span}), key=used.whole
        )
        for table in ("policies", "camera_retention", "erasures", "searches", "adaptation_runs"):
            assert told[table] == tables[table], table
    asked = datetime.fromisoformat(erased["confirmed"])
    before, _ = used.report("before", "--gallery", FOREIGN, *times(end=asked))
    assert not [row for row in before["erasures"] if row["erasure"] == erased["erasure"]]
    assert before["searches"] == everything["searches"]
    [first] = used.rows("action = 'AdminService/UpdateCameraRetention' AND "
                        f"gallery = '{FOREIGN}' AND body LIKE '%ended%'")  # fmt: skip
    unset, _ = used.report("unset", *times(end=datetime.fromisoformat(first["time"])))
    assert not unset["camera_retention"]
    nothing, _ = used.report("nothing", *times(end=datetime(2020, 1, 1, tzinfo=UTC)))
    assert not [name for name, rows in nothing.items() if rows]


def test_an_export_of_a_gallery_by_its_key(used: Used, tmp_path: Path) -> None:
    lines, cursor = tmp_path / "audit.jsonl", tmp_path / "cursor"
    where = ("--target", used.service.grpc, "--output", str(lines), "--cursor", str(cursor))

    def exported(*options: str) -> Any:
        return resight("audit", "export", *where, *options, RESIGHT_API_KEY=used.ours)

    assert exported("--gallery", OURS).returncode == 0
    said = [json.loads(line)["entry"] for line in lines.read_text("utf-8").splitlines()]
    assert {body["gallery"] for body in said} == {OURS}
    searched = used.rows(f"gallery = '{OURS}' AND action = 'SearchService/Search'")
    assert [body for body in said if body["action"] == "SearchService/Search"] == searched
    assert exported().returncode != 0
    refused = exported("--gallery", FOREIGN)
    assert refused.returncode != 0
    assert "cursor" in refused.stderr


def test_what_was_altered_elsewhere_is_said_without_its_place(used: Used) -> None:
    """Last: the audit is not sound any more."""

    def altered(gallery: str) -> tuple[str, int]:
        with closing(sqlite3.connect(used.data / "catalog.sqlite", timeout=120)) as opened:
            chain, sequence = opened.execute(
                "SELECT chain_id, sequence FROM audit_entries WHERE gallery = ? AND "
                "action = 'SearchService/Search' LIMIT 1",
                (gallery,),
            ).fetchone()
            opened.execute(
                "UPDATE audit_entries SET principal = 'key:x' WHERE chain_id = ? AND sequence = ?",
                (chain, sequence),
            )
            opened.commit()
        return chain.hex(), sequence

    def faults(key: str) -> list[tuple[str, int]]:
        with connected(used.service.grpc, key) as connection:
            told = connection.admin.VerifyAudit(messages.VerifyAuditRequest())
        return [(fault.chain_id, fault.sequence) for fault in told.faults]

    there = altered(FOREIGN)
    assert faults(used.ours) == [("", 0)]
    assert faults(used.whole) == [there]
    answer = used.asked("POST", "/v1/audit/verify", used.ours).json()
    assert [(one["chain_id"], one["sequence"]) for one in answer["faults"]] == [("", 0)]
    here = altered(OURS)
    assert faults(used.ours) == [("", 0), here]
    assert faults(used.foreign) == [("", 0), there]
    where = ("audit", "verify", "--target", used.service.grpc)
    said = resight(*where, RESIGHT_API_KEY=used.ours)
    assert said.returncode == 1
    wrong = [line for line in said.stdout.splitlines() if line.startswith("WRONG")]
    assert wrong[0] == f"WRONG: {ELSEWHERE}"
    assert wrong[1].startswith(f"WRONG: chain {here[0]} entry {here[1]}: ")
    assert len(wrong) == 2
