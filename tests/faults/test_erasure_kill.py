"""kill -9 while an erasure is carried out, under load: the next start goes on, and the receipt is
true of database, blob folder, log, ledger and index.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from sqlalchemy import create_engine, text

from resight.client.connection import Connection, connect
from resight.v1 import admin_service_pb2 as admin
from service.erasure_ledger import erasures as ledger_entries
from tests.e2e.replica_site import Site as Replicas
from tests.e2e.replica_site import eventually, upgraded
from tests.faults.evidence import Site, crop_id_of
from tests.faults.load import CAMERAS, Load, Numbers

KILLS = int(os.environ.get("RESIGHT_FAULT_ERASURE_KILLS", "3"))
SEED = int(os.environ.get("RESIGHT_FAULT_SEED", "1"))
PATIENCE = 120.0
# Small, so that there is something to interrupt.
BATCH = {"RESIGHT_GOVERNANCE__ERASURE_BATCH_CROPS": "2"}


def plan(connection: Connection, camera: str) -> tuple[admin.Erasure, set[str]]:
    """An erasure of all of a camera, and the ids on its list."""
    subject = admin.ErasureSubject(camera_id=camera)
    request = admin.CreateErasureRequest(subject=subject, reason="case 1")
    made = connection.admin.CreateErasure(request).erasure
    return made, set(listing(connection, made))


def listing(connection: Connection, made: admin.Erasure) -> list[str]:
    """The ids on its list, in its order."""
    listed, token = list[str](), ""
    while True:
        page = connection.admin.ListErasureCrops(
            admin.ListErasureCropsRequest(
                erasure_id=made.erasure_id, page_size=1000, page_token=token
            )
        )
        listed += [item.crop.crop_id for item in page.crops]
        token = page.next_page_token
        if not token:
            assert len(set(listed)) == made.crops
            return listed


def confirm(connection: Connection, made: admin.Erasure) -> admin.Erasure:
    request = admin.ConfirmErasureRequest(erasure_id=made.erasure_id, crops=made.crops)
    return connection.admin.ConfirmErasure(request).erasure


def done(connection: Connection, made: admin.Erasure) -> admin.Erasure:
    """The erasure when the service has gone on with it by itself."""
    end = time.monotonic() + PATIENCE
    while True:
        request = admin.GetErasureRequest(erasure_id=made.erasure_id)
        found = connection.admin.GetErasure(request).erasure
        if found.state == admin.Erasure.STATE_DONE:
            return found
        assert time.monotonic() < end, f"not resumed: {found.removed} of {found.crops}"
        time.sleep(0.05)


def check_receipt(url: str, ledger: Path, found: admin.Erasure, listed: set[str]) -> int:
    """Everything that the receipt says, against what is there; returns how many were removed."""
    told = json.loads(found.receipt)["receipt"]
    removed, absent = (set(told["crops"][kind]["ids"]) for kind in ("removed", "absent"))
    assert removed | absent == listed
    assert not removed & absent
    assert len(removed) == found.removed == told["removed_from"]["catalog"]["rows"]
    (vectors,) = told["removed_from"]["vectors"] or [{"vectors": 0}]
    assert vectors["vectors"] == len(removed)
    engine = create_engine(url)
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT crop_id FROM crops")).scalars()
        assert not listed & {str(UUID(bytes=bytes(each))) for each in stored}
        deletions = connection.execute(text("SELECT crop_id FROM changes WHERE kind = 3"))
        counted = Counter(str(UUID(bytes=bytes(each))) for each in deletions.scalars())
        assert connection.execute(text("SELECT count(*) FROM blob_removals")).scalar_one() == 0
    engine.dispose()
    assert all(counted[crop_id] == 1 for crop_id in removed), "deleted twice, or never"
    assert listed <= {str(entry.crop_id) for entry in ledger_entries(ledger)}
    return len(removed)


@pytest.mark.timeout(120 + 90 * KILLS)
def test_kill_9_during_an_erasure(
    start_service: Callable[..., Any], catalog: dict[str, str], site: Site
) -> None:
    chance, numbers = random.Random(SEED), Numbers()
    settings = catalog | BATCH
    unfinished: tuple[admin.Erasure, set[str]] | None = None
    interrupted = removed = 0
    for kill in range(KILLS + 1):
        with start_service(site.data, **settings) as service, connect(service.grpc) as connection:
            if unfinished is not None:
                made, listed = unfinished
                # Either the start has gone on already, or whoever confirms again does.
                found = confirm(connection, made) if kill % 2 else done(connection, made)
                removed += check_receipt(site.url, site.data / "erasures", found, listed)
                site.told.deleted |= {n for n in site.told.sent if crop_id_of(n) in listed}
                site.check(connection)
            if kill == KILLS:
                break
            load = Load(site, connection, numbers, seed=SEED * 1000 + kill)
            if not kill:
                load.register_cameras()
            load.start()
            turn = kill % len(CAMERAS)
            eventually(lambda: sum(n % len(CAMERAS) == turn for n in site.told.lasting) > 120)  # noqa: B023
            made, listed = plan(connection, CAMERAS[turn])
            assert made.crops > 20
            with site.told.lock:
                site.told.deleting |= {n for n in site.told.sent if crop_id_of(n) in listed}

            def ask(connection: Connection = connection, made: admin.Erasure = made) -> None:
                with suppress(grpc.RpcError):
                    confirm(connection, made)

            asking = threading.Thread(target=ask)
            asking.start()
            if kill:
                time.sleep(chance.uniform(0.0, 0.4))
            else:
                eventually(lambda: sum(site.numbers("SELECT removed FROM erasures")) > 0)
            service.stop(signal.SIGKILL)
            load.end()
            asking.join(120)
            unfinished = made, listed
            with_rows = site.numbers(
                "SELECT removed FROM erasures WHERE state = 'running' AND removed < listed"
            )
            interrupted += len(with_rows)
            began = site.numbers(
                "SELECT count(*) FROM erasures WHERE state IN ('running', 'done')"
                " AND erasure_row = (SELECT max(erasure_row) FROM erasures)"
            )
            if began == [0]:
                # The confirmation itself was lost.
                unfinished = None
    assert interrupted, "no kill came while crops were being removed"
    assert removed > 20


@contextmanager
def row_locked(url: str, crop_id: str) -> Iterator[None]:
    """Nobody removes this crop."""
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            wanted = {"crop_id": UUID(crop_id).bytes}
            locking = text("SELECT crop_row FROM crops WHERE crop_id = :crop_id FOR UPDATE")
            assert connection.execute(locking, wanted).one()
            yield
    finally:
        engine.dispose()


def test_a_replica_goes_on_with_what_another_began(
    start_service: Callable[..., Any], postgresql_server: Any, tmp_path: Path
) -> None:
    with postgresql_server.database() as url:
        site: Replicas = upgraded(start_service, tmp_path, url)
        with site.replica("a", **BATCH) as a, site.replica("b", **BATCH) as b:
            a.add_camera("door")
            for number in range(80):
                a.ingest(number)
            eventually(lambda: b.searchable() == 80)
            made, listed = plan(a.connection, "door")

            def ask() -> None:
                with suppress(grpc.RpcError):
                    confirm(a.connection, made)

            asking = threading.Thread(target=ask)
            # It comes as far as a crop in the middle of its list, and no further.
            with row_locked(url, listing(a.connection, made)[40]):
                asking.start()
                eventually(lambda: 0 < b.searchable() < 80)
                a.process.stop(signal.SIGKILL)
                asking.join(120)
            left = site.rows("SELECT count(*) FROM crops")[0][0]
            assert 0 < left < 80, "not interrupted"
            found = confirm(b.connection, made)
            assert check_receipt(url, site.folder / "erasures", found, listed) == 80
            assert b.searchable() == 0
            assert not [path for path in (site.folder / "blobs").rglob("*") if path.is_file()]
            index = json.loads(found.receipt)["receipt"]["removed_from"]["index"]
            # The one that was killed lives until its heartbeat has expired.
            assert index["confirmed"] == ["b"]
            assert index["pending"] in ([], ["a"])
            with site.replica("a") as again:
                assert again.searchable() == 0


def test_a_running_replica_confirms_and_a_stopped_one_is_named(
    start_service: Callable[..., Any], postgresql_server: Any, tmp_path: Path
) -> None:
    with postgresql_server.database() as url:
        site: Replicas = upgraded(start_service, tmp_path, url)
        patience = {
            "RESIGHT_REPLICAS__ERASURE_WAIT_SECONDS": "10",
            "RESIGHT_REPLICAS__EXPIRE_SECONDS": "60",
        }
        with site.replica("a", **patience) as a, site.replica("b", **patience) as b:
            a.add_camera("door")
            a.add_camera("yard")
            for number in range(6):
                a.ingest(number, "door" if number % 2 else "yard")
            eventually(lambda: b.searchable() == 6)
            made, _ = plan(b.connection, "door")
            index = json.loads(confirm(b.connection, made).receipt)["receipt"]["removed_from"][
                "index"
            ]
            assert (sorted(index["confirmed"]), index["pending"]) == (["a", "b"], [])
            assert a.searchable() == b.searchable() == 3
            a.process.process.send_signal(signal.SIGSTOP)
            try:
                made, _ = plan(b.connection, "yard")
                found = confirm(b.connection, made)
            finally:
                a.process.process.send_signal(signal.SIGCONT)
            told = json.loads(found.receipt)["receipt"]
            assert told["removed_from"]["index"]["confirmed"] == ["b"]
            assert told["removed_from"]["index"]["pending"] == ["a"]
            assert "pending replicas" in {each["where"] for each in told["may_still_hold"]}
            eventually(lambda: a.searchable() == 0)
