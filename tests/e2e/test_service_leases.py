"""Leases and crop streams against real processes that race, die and restart."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from resight.client.connection import Connection, connect
from resight.v1 import adaptation_service_pb2 as pb
from tests.e2e.adaptation_runs import State, fill, held, reason, refused, start

# Of the tests that share a service.
ON_BOTH = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)

CLIENT = Path(__file__).parent / "lease_client.py"


@contextmanager
def client_process(service: Any, gallery: str, holder: str, seconds: float) -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, str(CLIENT), service.grpc, gallery, holder, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def told(process: Any) -> list[str]:
    return process.stdout.readline().split()


@ON_BOTH
def test_one_of_many_threads_and_two_processes_wins(
    service: Any, connection: Connection, make_jpeg: Callable[..., bytes]
) -> None:
    fill(connection, [], "race")
    barrier = threading.Barrier(17)

    def attempt(number: int) -> str:
        barrier.wait()
        try:
            return start(connection, "race", holder=f"thread {number}").run.run_id
        except grpc.RpcError as error:
            return reason(error)

    with (
        client_process(service, "race", "process-1", 600) as one,
        client_process(service, "race", "process-2", 600) as two,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = [pool.submit(attempt, number) for number in range(16)]
        for process in (one, two):
            process.stdin.write("go\n")
            process.stdin.flush()
        barrier.wait()
        threads = [answer.result() for answer in answers]
        others = [told(one), told(two)]
    won = [answer for answer in threads if answer != "LEASE_HELD"]
    assert len(threads) - len(won) >= 15
    won += [words[1] for words in others if words[0] == "won"]
    assert [words for words in others if words[0] != "won"] == [
        ["refused", "FAILED_PRECONDITION"]
    ] * sum(words[0] != "won" for words in others)
    assert len(won) == 1
    runs = connection.adaptation.ListAdaptationRuns(pb.ListAdaptationRunsRequest(gallery="race"))
    assert [run.run_id for run in runs.runs] == won


@ON_BOTH
def test_a_killed_client_blocks_the_next_until_its_lease_expires(
    service: Any, connection: Connection
) -> None:
    fill(connection, [], "killed")
    with client_process(service, "killed", "doomed", 5.0) as doomed:
        doomed.stdin.write("go\n")
        doomed.stdin.flush()
        _, run_id, token = told(doomed)
        doomed.send_signal(signal.SIGKILL)
        doomed.wait(120)
    started = once_free(connection, "killed", holder="doomed")
    old = pb.GetAdaptationRunRequest(gallery="killed", run_id=run_id)
    run = connection.adaptation.GetAdaptationRun(old).run
    assert run.state == State.STATE_ABANDONED
    taken = run.end_time.ToMicroseconds() - run.start_time.ToMicroseconds()
    assert taken >= 5_000_000, "no sooner than the lease said"
    assert started.run.start_time == run.end_time
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "LEASE_LOST"):
        connection.adaptation.HeartbeatAdaptationRun(
            pb.HeartbeatAdaptationRunRequest(gallery="killed", run_id=run_id, lease_token=token)
        )


def once_free(connection: Connection, gallery: str, *, holder: str) -> Any:
    """The run started as soon as the holder's lease is free; any other refusal is an error."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            return start(connection, gallery)
        except grpc.RpcError as error:
            if reason(error) != "LEASE_HELD" or f"{holder} holds the lease" not in str(error):
                raise
        time.sleep(0.05)
    raise AssertionError("the lease never expired")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["kill-9", "drain"])
def test_a_restart_in_the_middle_loses_and_repeats_no_crop(
    start_service: Any,
    catalog: dict[str, str],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    how: int,
) -> None:
    # Larger than what the transport buffers, so that the stream is still going when it is cut.
    images = [make_jpeg(number) + bytes(200_000) for number in range(60)]
    received: list[Any] = []
    codes: list[int] = []
    with (
        start_service(tmp_path / "data", **catalog) as service,
        connect(service.grpc) as connection,
    ):
        ids = fill(connection, images)
        started = start(connection)
        stream = connection.adaptation.StreamAdaptationCrops(
            pb.StreamAdaptationCropsRequest(**held(started))
        )
        with pytest.raises(grpc.RpcError) as caught:
            cut_after(7, stream, received, lambda: codes.append(service.stop(how)))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert codes == [-9 if how == signal.SIGKILL else 0]
    assert 7 <= len(received) < len(images)
    with (
        start_service(tmp_path / "data", **catalog) as service,
        connect(service.grpc) as connection,
    ):
        with pytest.raises(grpc.RpcError, match="test holds the lease"):
            start(connection)
        beat = pb.HeartbeatAdaptationRunRequest(**held(started))
        assert connection.adaptation.HeartbeatAdaptationRun(beat).run.state == State.STATE_RUNNING
        *rest, last = connection.adaptation.StreamAdaptationCrops(
            pb.StreamAdaptationCropsRequest(**held(started), cursor=received[-1].cursor)
        )
        received += [item.crop for item in rest]
        assert [item.crop.crop_id for item in received] == ids
        assert last.summary.sent_crops == len(rest)
        assert [item.crop.image for item in rest] == images[-len(rest) :]


def cut_after(count: int, stream: Any, received: list[Any], cut: Callable[[], None]) -> None:
    for item in stream:
        assert item.WhichOneof("item") == "crop", "the stream ended before it was cut"
        received.append(item.crop)
        if len(received) == count:
            cut()
