"""Two real services on one PostgreSQL: each finds what the other stores, neither what it erased."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from sqlalchemy import text

from resight.client.faults import translated
from resight.errors import FailedPrecondition, NotFound, ResightError, Unavailable
from resight.v1 import adaptation_service_pb2 as adaptation
from resight.v1 import embed_service_pb2 as embed
from tests.conftest import PostgresqlServer
from tests.e2e.conftest import jpeg
from tests.e2e.replica_site import ACCEPTED, EXPIRE, WAIT, Replica, Site, eventually, upgraded

STORED = text(
    "SELECT c.crop_id, e.vector FROM crops c JOIN embeddings e USING (crop_row)"
    " JOIN galleries g USING (gallery_row) WHERE g.name = :name"
)


@pytest.fixture
def site(start_service: Any, postgresql_server: PostgresqlServer, tmp_path: Path) -> Iterator[Site]:
    with postgresql_server.database() as url:
        yield upgraded(start_service, tmp_path, url)


@pytest.fixture
def pair(site: Site) -> Iterator[tuple[Site, Replica, Replica]]:
    with site.replica("a") as a, site.replica("b") as b:
        a.add_camera("door")
        eventually(lambda: b.ingest(0))
        yield site, a, b


def test_each_finds_what_the_other_stores_and_neither_what_either_deleted(
    pair: tuple[Site, Replica, Replica],
) -> None:
    site, a, b = pair
    for number in range(1, 13):
        here, there = (a, b) if number % 2 else (b, a)
        crop_id = here.ingest(number)
        eventually(lambda there=there, number=number: there.found(jpeg(number))[0] == crop_id)  # noqa: B023
        assert there.image(crop_id) == jpeg(number)
        before = here.searchable()
        assert there.searchable() == before
        # Both ways, by whoever: acknowledged means that it is in no index.
        deleting, other = (here, there) if number % 3 else (there, here)
        assert deleting.delete(crop_id) == []
        assert other.searchable() == deleting.searchable() == before - 1
        for replica in (a, b):
            assert crop_id not in replica.found(jpeg(number))
            with pytest.raises(NotFound):
                replica.image(crop_id)
    metrics = httpx.get(f"http://{b.process.rest}/metrics").text
    assert "resight_replicas_live 2.0" in metrics
    counted = {
        line.split()[0]: float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith("resight_replica")
    }
    assert counted["resight_replica_lag_seconds_count"] >= 6
    assert counted['resight_replica_follows_total{outcome="applied"}'] >= 6
    assert {name for (name,) in site.rows("SELECT name FROM replicas")} == {"a", "b"}


def test_cameras_galleries_and_leases_of_one_are_those_of_the_other(
    pair: tuple[Site, Replica, Replica],
) -> None:
    _, a, b = pair
    a.add_camera("yard", "second")
    crop_id = eventually(lambda: b.ingest(1, "yard", "second"))
    eventually(lambda: a.found(jpeg(1), "second") == [crop_id])
    assert crop_id not in a.found(jpeg(1))

    start = adaptation.StartAdaptationRunRequest(
        gallery="second", holder="one", lease_duration=Duration(seconds=600)
    )
    held = a.connection.adaptation.StartAdaptationRun(start)
    with pytest.raises(FailedPrecondition) as caught, translated():
        b.connection.adaptation.StartAdaptationRun(start)
    assert caught.value.reason == "LEASE_HELD"
    key = {"gallery": "second", "run_id": held.run.run_id, "lease_token": held.lease_token}
    b.connection.adaptation.HeartbeatAdaptationRun(adaptation.HeartbeatAdaptationRunRequest(**key))
    streamed = b.connection.adaptation.StreamAdaptationCrops(
        adaptation.StreamAdaptationCropsRequest(**key)
    )
    assert [each.crop.crop.crop_id for each in streamed if each.HasField("crop")] == [crop_id]
    b.connection.adaptation.FinishAdaptationRun(
        adaptation.FinishAdaptationRunRequest(
            **key, state=adaptation.AdaptationRun.STATE_FAILED, reason="TEST", message="done"
        )
    )
    assert a.connection.adaptation.StartAdaptationRun(start).run.run_id != held.run.run_id


def test_one_that_stands_still_is_named_then_not_waited_for_and_catches_up_before_it_serves(
    site: Site,
) -> None:
    with (
        site.replica("a", RESIGHT_REPLICAS__ERASURE_WAIT_SECONDS="0.5") as a,
        site.replica("b") as b,
    ):
        a.add_camera("door")
        ids = [a.ingest(number) for number in range(4)]
        eventually(lambda: b.searchable() == 4)
        b.process.process.send_signal(signal.SIGSTOP)
        assert a.delete(ids[0]) == ["b"]
        rest = f"http://{a.process.rest}/v1/galleries/default/crops"
        answer = httpx.delete(f"{rest}/{ids[1]}")
        assert (answer.status_code, answer.json()) == (202, {"pending_replicas": ["b"]})
        metrics = httpx.get(f"http://{a.process.rest}/metrics").text
        assert "resight_erasures_pending_total 2.0" in metrics
        time.sleep(EXPIRE + 0.5)
        answer = httpx.delete(f"{rest}/{ids[2]}")
        assert (answer.status_code, answer.content) == (204, b"")

        with site.locked("replicas"):
            # It runs again, and cannot be heard of.
            b.process.process.send_signal(signal.SIGCONT)
            for refused in (lambda: b.found(jpeg(0)), lambda: b.image(ids[3])):
                with pytest.raises(Unavailable) as caught:
                    refused()
                assert caught.value.reason == "INDEX_STALE"
            eventually(lambda: b.state() == (503, "stale"))
        eventually(lambda: b.state() == (200, "ready"))
        assert b.found(jpeg(0)) == [ids[3]]
        assert b.searchable() == 1
        assert b.image(ids[3]) == jpeg(3)


def test_one_that_was_killed_is_waited_for_until_its_heartbeat_has_expired(site: Site) -> None:
    with site.replica("a", RESIGHT_REPLICAS__ERASURE_WAIT_SECONDS=str(WAIT)) as a:
        a.add_camera("door")
        with site.replica("b") as b:
            ids = [a.ingest(number) for number in range(3)]
            eventually(lambda: b.searchable() == 3)
            b.process.stop(signal.SIGKILL)
            assert a.delete(ids[0]) == ["b"]
        time.sleep(EXPIRE + 0.5)
        assert a.delete(ids[1]) == []
        with site.replica("b") as b:
            assert b.searchable() == 1
            assert b.found(jpeg(0)) == [ids[2]]
            # The same data directory, the same replica.
            assert site.rows("SELECT name FROM replicas ORDER BY name") == [("a",), ("b",)]
            assert a.delete(ids[2]) == []
            assert b.searchable() == 0
            # One that ends well is gone at once.
            assert b.process.stop() == 0
        assert site.rows("SELECT name FROM replicas") == [("a",)]


def test_both_answer_as_brute_force_after_both_wrote_at_the_same_time(
    pair: tuple[Site, Replica, Replica],
) -> None:
    site, a, b = pair
    a.add_camera("door", "second")
    eventually(lambda: b.ingest(0, "door", "second"))
    failures: list[BaseException] = []

    def write(replica: Replica, seed: int) -> None:
        chance, mine = random.Random(seed), []
        try:
            for step in range(60):
                if mine and chance.random() < 0.3:
                    crop_id, name = mine.pop(chance.randrange(len(mine)))
                    assert replica.delete(crop_id, name) == []
                    continue
                name = chance.choice(["", "second"])
                mine.append((replica.ingest(seed * 1000 + step, name=name), name))
        except BaseException as error:
            failures.append(error)

    writers = [
        threading.Thread(target=write, args=(replica, seed))
        for seed, replica in enumerate([a, b] * 3, start=1)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures, failures
    for name in ("default", "second"):
        stored = {
            UUID(bytes=bytes(crop_id)): np.frombuffer(bytes(vector), "<f4").astype(np.float64)
            for crop_id, vector in site.rows(STORED, name=name)
        }
        assert len(stored) > 40
        request = embed.EmbedRequest(gallery=name, image=jpeg(10**6))
        vector = a.connection.embed.Embed(request).embedding.values
        probe = np.frombuffer(vector, "<f4").astype(np.float64)
        scores = {str(crop_id): float(row @ probe) for crop_id, row in stored.items()}
        ranked = sorted(scores, key=lambda crop_id: -scores[crop_id])
        for replica in (a, b):
            eventually(lambda replica=replica: replica.found(jpeg(10**6), name) == ranked)  # noqa: B023
            matches = replica.matches(jpeg(10**6), name)
            for match in matches:
                assert match.score == pytest.approx(scores[match.crop.crop_id], abs=1e-6)


def test_a_database_that_stops_and_starts_loses_nothing_acknowledged(
    own_postgresql: PostgresqlServer, start_service: Any, tmp_path: Path
) -> None:
    own_postgresql.execute("CREATE DATABASE site")
    site = upgraded(start_service, tmp_path, own_postgresql.url("site"))
    acknowledged: dict[int, str] = {}
    refusals: list[str] = []
    stopping = threading.Event()

    def write(replica: Replica, numbers: Iterator[int]) -> None:
        for number in numbers:
            if stopping.is_set():
                return
            try:
                answer = replica.offer(number)
            except ResightError as error:
                refusals.append(str(error))
                continue
            if answer.outcome == ACCEPTED:
                acknowledged[number] = answer.crop_id
            else:
                refusals.append(answer.reason)
                time.sleep(0.02)

    with ExitStack() as stack:
        a, b = (stack.enter_context(site.replica(name)) for name in "ab")
        a.add_camera("door")
        eventually(lambda: b.ingest(10**6))
        writers = [
            threading.Thread(target=write, args=(replica, count(place * 10**5)))
            for place, replica in enumerate([a, b, a, b])
        ]
        for writer in writers:
            writer.start()
        eventually(lambda: len(acknowledged) > 40)
        own_postgresql.stop()
        before = len(acknowledged)
        eventually(lambda: len(refusals) > 10)
        for replica in (a, b):
            with pytest.raises(Unavailable):
                replica.found(jpeg(0))
        eventually(lambda: [r.state() for r in (a, b)] == [(503, "stale")] * 2)
        own_postgresql.start()
        eventually(lambda: len(acknowledged) > before + 40)
        stopping.set()
        for writer in writers:
            writer.join()
        eventually(lambda: [r.state() for r in (a, b)] == [(200, "ready")] * 2)
        (stored,) = site.rows("SELECT count(*) FROM crops")
        for replica in (a, b):
            eventually(lambda replica=replica: replica.searchable() == stored[0])
            there = set(replica.found(jpeg(0)))
            assert set(acknowledged.values()) <= there
        for number, crop_id in acknowledged.items():
            assert a.image(crop_id) == jpeg(number)
