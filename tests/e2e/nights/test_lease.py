"""A night and its lease: held elsewhere, kept by heartbeats, lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from resight.client.connection import Connection
from resight.v1 import adaptation_service_pb2 as pb
from tests.e2e.nights.stand_in import Night, State, Training, candidates, ingest, run_of, used

LEASE = 5.0  # seconds


def test_a_lease_held_elsewhere_is_said_in_words(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    request = pb.StartAdaptationRunRequest(gallery=gallery, holder="gpu-7 (process 1)")
    connection.adaptation.StartAdaptationRun(request)
    outcome = night.run(Training(make_bundle))
    assert (outcome.result, outcome.reason, outcome.exit_code) == ("held", "LEASE_HELD", 1)
    assert "gpu-7 (process 1) holds the lease" in outcome.message
    runs = connection.adaptation.ListAdaptationRuns(pb.ListAdaptationRunsRequest(gallery=gallery))
    assert len(runs.runs) == 1


def test_heartbeats_keep_a_lease_shorter_than_the_training(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
) -> None:
    ingest(connection, gallery, images)
    training = Training(make_bundle)
    refused: list[grpc.RpcError] = []

    def latest() -> pb.AdaptationRun:
        listed = pb.ListAdaptationRunsRequest(gallery=gallery)
        return connection.adaptation.ListAdaptationRuns(listed).runs[0]

    def long_training() -> None:
        until = latest().lease_expire_time.ToDatetime() + timedelta(seconds=LEASE)
        deadline = time.monotonic() + 120
        # A heartbeat of after that time: another has a whole lease to be refused in.
        while (run := latest()).lease_expire_time.ToDatetime() < until:
            assert time.monotonic() < deadline, run
            time.sleep(0.02)
        assert run.progress.stage == "train"
        with pytest.raises(grpc.RpcError, match="holds the lease") as caught:
            connection.adaptation.StartAdaptationRun(
                pb.StartAdaptationRunRequest(gallery=gallery, holder="another")
            )
        refused.append(caught.value)

    training.during = long_training
    assert night.run(training, lease_seconds=LEASE).result == "succeeded"
    assert len(refused) == 1


def test_a_night_that_lost_its_lease_leaves_nothing(
    night: Night,
    connection: Connection,
    gallery: str,
    images: list[bytes],
    make_bundle: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingest(connection, gallery, images)
    # A machine that stood still: no heartbeat for longer than the lease.
    monkeypatch.setattr("adapt.nightly.lease.Lease._beat", lambda _: None)
    training = Training(make_bundle)

    def overtaken() -> None:
        time.sleep(1.1)
        request = pb.StartAdaptationRunRequest(gallery=gallery, holder="another")
        connection.adaptation.StartAdaptationRun(request)

    training.during = overtaken
    outcome = night.run(training, lease_seconds=1)
    assert (outcome.result, outcome.reason, outcome.exit_code) == ("failed", "LEASE_LOST", 1)
    assert "another took it" in outcome.message
    run = run_of(connection, gallery, outcome)
    assert run.state == State.STATE_ABANDONED
    assert used(connection, gallery, outcome) == {}
    assert candidates(connection, gallery) == []
    assert not night.state.candidate.exists()
