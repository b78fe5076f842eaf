"""`resight ingest` and its service stop, start and stay away; every crop is stored once."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from resight.client.connection import Connection, connect
from tests.e2e.ingest_streams import add_camera, stored
from tests.ports import free_port

RESIGHT = Path(sys.executable).with_name("resight")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, make_jpeg: Callable[..., bytes]) -> Path:
    return written(tmp_path_factory.mktemp("source"), [make_jpeg(n) for n in range(1500)])


def written(folder: Path, images: list[bytes]) -> Path:
    with (folder / "crops.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "camera", "capture_time"])
        for number, image in enumerate(images):
            (folder / f"{number}.jpg").write_bytes(image)
            minutes, seconds = divmod(number, 60)
            time_ = f"2026-04-01T{10 + minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}Z"
            writer.writerow([f"{number}.jpg", "door", time_])
    return folder / "crops.csv"


@contextmanager
def ingesting(manifest: Path, target: str, *options: str) -> Iterator[Any]:
    """``resight ingest`` in a process of its own."""
    command = [str(RESIGHT), "ingest", str(manifest), "--target", target, "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(connection: Connection, crops: int, process: Any) -> None:
    until = time.monotonic() + 120
    while stored(connection, at_rest=False) < crops:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def offered(service: Any) -> int:
    """Crops that were offered for ingest since the start."""
    text = httpx.get(f"http://{service.rest}/metrics").text
    found = re.findall(r"^resight_ingested_total\{.*\} (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_outlasts_a_restart_and_sends_only_what_is_left(
    start_service: Any, catalog: dict[str, str], tmp_path: Path, manifest: Path, how: int
) -> None:
    port = str(free_port())
    with (
        start_service(tmp_path, "--grpc-port", port, **catalog) as service,
        connect(service.grpc) as connection,
    ):
        add_camera(connection)
        with ingesting(manifest, service.grpc) as client:
            wait_for(connection, 200, client)
            service.stop(how)
            with start_service(tmp_path, "--grpc-port", port, **catalog) as again:
                before = again.crops
                assert 200 <= before < 1500, "too fast to be interrupted"
                out, err = client.communicate(timeout=120)
                assert client.returncode == 0, err
                # Beyond what was in flight nothing is sent that had been stored.
                assert offered(again) <= 1500 - before + 64
                with connect(again.grpc) as now:
                    assert stored(now) == 1500
    report = json.loads(out)
    assert report["accepted"] + report["duplicate"] == 1500
    assert report["rejected"] == 0
    assert report["duplicate"] <= 64
    assert report["retries"] >= 1


def test_the_command_is_interrupted_and_run_again(
    start_service: Any, tmp_path: Path, manifest: Path
) -> None:
    with start_service(tmp_path) as service, connect(service.grpc) as connection:
        add_camera(connection)
        for how, least in ((signal.SIGINT, 100), (signal.SIGTERM, 400)):
            with ingesting(manifest, service.grpc) as client:
                wait_for(connection, least, client)
                client.send_signal(how)
                _, err = client.communicate(timeout=120)
                assert client.returncode == 130, err
                told = re.findall(r"(\d+) of 1500 crops are stored", err)
                assert told, err
        there = stored(connection, at_rest=False)
        assert int(told[0]) <= there < 1500, "too fast to be interrupted"
        with ingesting(manifest, service.grpc) as client:
            out, err = client.communicate(timeout=120)
            assert client.returncode == 0, err
        report = json.loads(out)
        # What was in flight may have been stored later.
        assert there <= report["duplicate"] <= there + 64
        assert report["accepted"] + report["duplicate"] == 1500 == stored(connection)


def test_a_service_that_stays_away_is_given_up(
    start_service: Any, tmp_path: Path, manifest: Path
) -> None:
    with start_service(tmp_path) as service, connect(service.grpc) as connection:
        add_camera(connection)
        with ingesting(manifest, service.grpc, "--patience", "5") as client:
            wait_for(connection, 50, client)
            service.stop(signal.SIGKILL)
            out, err = client.communicate(timeout=120)
    assert (client.returncode, out) == (1, "")
    assert "of 1500 crops are stored; run the same command again" in err
    assert "error: " in err


def test_one_crop_too_long_for_a_message_is_rejected_alone(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    images = [make_jpeg(number) for number in range(40)]
    images[20] += bytes(100_000)  # after the end of the image, where nobody looks
    manifest = written(tmp_path, images)
    limit = {"RESIGHT_GRPC__MAX_MESSAGE_BYTES": "65536"}
    with (
        start_service(tmp_path / "data", **limit) as service,
        connect(service.grpc) as connection,
        ingesting(manifest, service.grpc, "--register-cameras") as client,
    ):
        out, err = client.communicate(timeout=120)
        assert client.returncode == 0, err
        report = json.loads(out)
        assert report["accepted"] + report["duplicate"] == 39 == stored(connection)
        assert report["rejected_by_reason"] == {"IMAGE_TOO_LARGE": 1}
        assert "20.jpg" in err
        assert "grpc.max_message_bytes" in err
