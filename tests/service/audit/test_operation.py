"""What commands do on the catalog itself stands in the audit, beside whatever services write."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from resight.errors import InvalidArgument, NotFound, Unavailable
from service.access import direct
from service.audit import operation
from service.audit.anchors import open_anchors
from service.audit.entry import Entry
from service.audit.head_file import HEAD_FILE, HeadFile
from service.audit.operation import operating
from service.audit.reading import CatalogAudit
from service.audit.report import Tally
from service.audit.verifying import Verdict, anchors_of, verify
from service.catalog import audit as statements
from service.catalog import schema
from service.catalog.audit import Selection
from service.catalog.engine import open_engine
from service.catalog.models import api_keys, audit_checkpoints, audit_entries
from service.catalog.store import Catalog
from service.commands import db
from service.domain.api_key import KeyRequest
from service.settings import ServiceSettings, load_settings
from service.signing import open_signing_key

ASKED = KeyRequest("desk", ["search"])
USER = f"operator:{pwd.getpwuid(os.geteuid()).pw_name}"
DYING = Path(__file__).with_name("dying_command.py")


@pytest.fixture
def settings(tmp_path: Path, catalog_url: str) -> ServiceSettings:
    return load_settings({"data_dir": tmp_path / "data", "database_url": catalog_url})


@pytest.fixture
def said(query: Any) -> Callable[[], list[dict[str, Any]]]:
    """Every entry, in the order of its chain."""
    asked = "SELECT body FROM audit_entries ORDER BY chain_id, sequence"
    return lambda: [json.loads(body) for (body,) in query(asked)]


def verdict_of(catalog: Catalog, **options: Any) -> Verdict:
    with catalog.connect() as connection:
        return verify(connection, **options)


def tables_of(catalog: Catalog) -> dict[str, list[list[str]]]:
    tally = Tally()
    with catalog.connect() as connection:
        tally.add_all(CatalogAudit(connection).entries(Selection()))
    return {table.name: [list(row) for row in table.rows] for table in tally.tables()}


def test_a_key_is_made_and_revoked_in_chains_of_their_own(
    settings: ServiceSettings, catalog: Catalog, said: Any
) -> None:
    made = direct.create(settings, ASKED)
    direct.revoke(settings, made.key.key_id)
    found = said()
    assert len(found) == 8
    for what in ("CreateApiKey", "RevokeApiKey"):
        began, ended = [each for each in found if each["action"] == f"AdminService/{what}"]
        assert (began["event"], ended["event"], ended["outcome"]) == ("began", "ended", "OK")
        assert began["request_id"] == ended["request_id"]
        assert {each["principal"] for each in (began, ended)} == {USER}
        assert {each["principal_kind"] for each in (began, ended)} == {"catalog"}
        assert ended["notes"]["key_id"] == made.key.key_id
        assert not {"reason", "field"} & {*began, *ended}
    assert made.text.split("_", 2)[2] not in json.dumps(found)
    verdict = verdict_of(catalog)
    assert (verdict.faults, verdict.chains, verdict.unsigned_entries) == ([], 2, 0)
    tables = tables_of(catalog)
    assert [row[1:4] for row in tables["changes"]] == [
        [USER, "", "AdminService/CreateApiKey"],
        [USER, "", "AdminService/RevokeApiKey"],
    ]
    assert tables["unfinished"] == []


def test_beside_a_service_whose_chain_goes_on(
    settings: ServiceSettings, audited: Any, run: Any, catalog: Catalog, query: Any, tmp_path: Path
) -> None:
    async def work() -> UUID:
        async with audited() as audit:
            await audit.log.record(Entry("a/b"))
            direct.create(settings, ASKED)
            await audit.log.record(Entry("a/b"))
            own: UUID = audit.log.head.chain_id
            return own

    own = run(work())
    head = HeadFile(tmp_path / "data" / HEAD_FILE).read()
    assert head is not None
    assert (head.chain_id, head.sequence) == (own, 4)
    verdict = verdict_of(catalog, heads=[head])
    assert (verdict.faults, verdict.chains, verdict.unsigned_entries) == ([], 2, 0)
    assert len(verdict.signers) == 1

    async def again() -> None:
        async with audited():
            pass

    run(again())
    # The service's chain went on after the command had named it, so it is named again.
    rows = query("SELECT body, chain_id FROM audit_entries WHERE action = 'audit/began'")
    [last] = [
        json.loads(body)
        for body, _ in rows
        if {"chain": own.hex, "sequence": 4} in
        [{name: end[name] for name in ("chain", "sequence")} for end in json.loads(body)["before"]]
    ]  # fmt: skip
    assert "missing" not in last
    assert len(last["before"]) == 2
    assert verdict_of(catalog).faults == []


def test_an_altered_or_removed_command_is_found(
    settings: ServiceSettings, audited: Any, run: Any, catalog: Catalog
) -> None:
    direct.create(settings, ASKED)

    async def serve() -> None:
        async with audited():
            pass

    run(serve())
    entries = audit_entries.c
    ended = (entries.action == "AdminService/CreateApiKey", entries.sequence == 3)
    with catalog._write_engine.connect() as connection:
        body, chain = connection.execute(
            audit_entries.select().where(*ended).with_only_columns(entries.body, entries.chain_id)
        ).one()
        altered = body.replace("catalog", "cataloG")
        assert altered != body
        connection.execute(update(audit_entries).where(*ended).values(body=altered))
        [fault] = verify(connection).faults
        assert (fault.chain_id, fault.sequence) == (chain.hex, 3)
        connection.rollback()
        for table in (audit_entries, audit_checkpoints):
            connection.execute(delete(table).where(table.c.chain_id == chain))
        [fault] = verify(connection).faults
        assert fault.chain_id == chain.hex
        connection.rollback()
    assert verdict_of(catalog).faults == []


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("what", ["create", "revoke"])
def test_killed_in_between_it_has_begun_and_nothing_is_changed(
    settings: ServiceSettings, catalog: Catalog, said: Any, catalog_url: str, what: str, place: str
) -> None:
    key = direct.create(settings, ASKED).key
    killed = subprocess.run(
        [sys.executable, DYING, settings.data_dir, catalog_url,
         "create" if what == "create" else key.key_id, place],
        timeout=120, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    [stored] = direct.every(settings)
    assert (stored.key_id, stored.revoke_time) == (key.key_id, None)
    assert len(said()) == 6
    verdict = verdict_of(catalog)
    assert (verdict.faults, verdict.unsigned_entries) == ([], 0)
    [[_, who, _, action, about, _]] = tables_of(catalog)["unfinished"]
    assert (who, action) == (USER, f"AdminService/{what.capitalize()}ApiKey")
    assert ("name=" in about) if what == "create" else (about == f"key_id={key.key_id}")
    # What has begun cannot be taken away unnoticed once anything came after it.
    direct.create(settings, ASKED)
    last = audit_entries.c.body.like('%"began"%') & (audit_entries.c.sequence == 2)
    with catalog._write_engine.connect() as connection:
        chains = audit_entries.select().with_only_columns(audit_entries.c.chain_id).where(last)
        for (chain,) in connection.execute(chains).all():
            here = audit_entries.c.chain_id == chain
            connection.execute(delete(audit_entries).where(here, audit_entries.c.sequence == 2))
            assert {fault.chain_id for fault in verify(connection).faults} == {chain.hex}
            connection.rollback()


def test_without_a_record_nothing_is_changed(
    settings: ServiceSettings, catalog: Catalog, query: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct.create(settings, ASKED)

    def fails(*_: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    with monkeypatch.context() as broken:
        broken.setattr(statements, "add", fails)
        with pytest.raises(Unavailable, match="disk I/O error"):
            direct.create(settings, ASKED)
    with monkeypatch.context() as broken:
        # Its end alone: the change is undone with it, and the end says so later or never.
        broken.setattr(operation, "sign", fails)
        with pytest.raises(Unavailable, match="disk I/O error"):
            direct.create(settings, ASKED)
    assert query(api_keys.select().with_only_columns(api_keys.c.display_name)) == [("desk",)]
    assert len(tables_of(catalog)["unfinished"]) == 1
    assert verdict_of(catalog).faults == []


def test_what_fails_is_recorded_as_such(
    settings: ServiceSettings, catalog: Catalog, said: Any
) -> None:
    with pytest.raises(NotFound):
        direct.revoke(settings, "0123456789abcdef")
    with pytest.raises(KeyboardInterrupt), operating(settings, "command/x", {"a": 1}):
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), operating(settings, "command/y"):
        1 / 0  # noqa: B018 -- any error
    theirs = InvalidArgument("bad", field="what they wrote", reason="TOO_LONG")
    with pytest.raises(InvalidArgument), operating(settings, "command/z"):
        raise theirs
    ended = {each["action"]: each for each in said() if each.get("event") == "ended"}
    told = ("outcome", "reason", "field")
    assert {action: tuple(map(each.get, told)) for action, each in ended.items()} == {
        "AdminService/RevokeApiKey": ("NOT_FOUND", "NOT_FOUND", "key_id"),
        "command/x": ("CANCELLED", "CANCELLED", None),
        "command/y": ("INTERNAL", "INTERNAL", None),
        "command/z": ("INVALID_ARGUMENT", "TOO_LONG", None),
    }
    assert ended["command/x"]["notes"] == {"a": 1}
    assert verdict_of(catalog).faults == []
    assert not (settings.data_dir / HEAD_FILE).exists()


def test_an_audit_that_is_off_records_nothing(
    settings: ServiceSettings, catalog_url: str, said: Any
) -> None:
    off = load_settings(
        {"data_dir": settings.data_dir, "database_url": catalog_url, "audit": {"enabled": False}}
    )
    made = direct.create(off, ASKED)
    direct.revoke(off, made.key.key_id)
    assert said() == []


def test_what_is_signed_is_anchored_and_a_place_that_fails_stops_nothing(
    settings: ServiceSettings, catalog: Catalog, catalog_url: str, tmp_path: Path, query: Any
) -> None:
    url = f"file://{tmp_path}/anchors"
    named = {"data_dir": settings.data_dir, "database_url": catalog_url}
    direct.create(load_settings({**named, "audit": {"anchor_url": url}}), ASKED)
    anchors = anchors_of(open_anchors(url).all())
    assert sorted(each.sequence for each in anchors) == [2, 4]
    assert verdict_of(catalog, anchors=anchors).faults == []
    waiting = "SELECT count(*) FROM audit_checkpoints WHERE anchor_time IS NULL"
    assert query(waiting) == [(0,)]
    (tmp_path / "file").write_bytes(b"")
    broken = {"anchor_url": f"file://{tmp_path}/file/anchors"}
    direct.create(load_settings({**named, "audit": broken}), ASKED)
    assert query(waiting) == [(2,)]
    assert len(direct.every(settings)) == 2


@pytest.mark.parametrize("signs", [True, False])
def test_an_upgrade_is_recorded_where_there_is_a_key(
    tmp_path: Path, database_url: str, query: Any, monkeypatch: pytest.MonkeyPatch, signs: bool
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("RESIGHT_DATABASE_URL", database_url)
    if signs:
        open_signing_key(None, data)
    upgraded = ["upgrade", "--data", str(data), "--json"]
    for first in (True, False):
        done = CliRunner().invoke(db.app, upgraded)
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["upgraded"] is first
    bodies = [json.loads(body) for (body,) in query("SELECT body FROM audit_entries")]
    found = [said for said in bodies if said["action"] == "command/db-upgrade"]
    notes = {"from": "", "to": schema.head_revision()}
    assert [said["notes"] for said in found] == ([notes, notes] if signs else [])
    engine = open_engine(database_url, pool_size=1, writer=False)
    with engine.connect() as connection:
        verdict = verify(connection)
    engine.dispose()
    assert (verdict.faults, verdict.chains) == ([], int(signs))
