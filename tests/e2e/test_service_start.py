"""A service that cannot serve says why in one line and exits 1; nothing starts half."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RESIGHT = Path(sys.executable).with_name("resight")


def failed_start(*options: str, **environment: str) -> str:
    done = subprocess.run(
        [str(RESIGHT), "serve", "--grpc-port", "0", "--rest-port", "0", *options],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize("which", ["grpc", "rest"])
def test_a_port_that_is_taken(tiny_bundle: Path, tmp_path: Path, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = failed_start(
            "--bundle", str(tiny_bundle), "--data", str(tmp_path), f"--{which}-port", str(port)
        )
    assert f"{which}.port" in message
    assert str(port) in message
    assert f"--{which}-port" in message


def test_no_bundle(tmp_path: Path) -> None:
    assert "--bundle" in failed_start("--data", str(tmp_path))
    missing = failed_start("--data", str(tmp_path), "--bundle", str(tmp_path / "nothing"))
    assert str(tmp_path / "nothing") in missing


@pytest.mark.parametrize("file", ["encoder.onnx", "manifest.json"])
def test_a_bundle_with_one_flipped_byte(tiny_bundle: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    data = bytearray((copy / file).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / file).write_bytes(bytes(data))
    message = failed_start("--bundle", str(copy), "--data", str(tmp_path / "data"))
    assert file in message or "manifest" in message


def test_a_data_directory_in_use(tiny_bundle: Path, tmp_path: Path, start_service: Any) -> None:
    with start_service(tmp_path / "data") as service:
        message = failed_start("--bundle", str(tiny_bundle), "--data", str(tmp_path / "data"))
        assert "in use" in message or "another" in message
        assert service.process.poll() is None


def test_bad_settings(tiny_bundle: Path, tmp_path: Path) -> None:
    base = ("--bundle", str(tiny_bundle), "--data", str(tmp_path))
    assert "allow_insecure_network" in failed_start(*base, "--host", "0.0.0.0")  # noqa: S104
    assert "batcher" in failed_start(*base, RESIGHT_BATCHER__MAX_BACH="3")
    assert "max_batch" in failed_start(*base, RESIGHT_BATCHER__MAX_BATCH="0")


def test_reflection_can_be_turned_off(start_service: Any, tmp_path: Path) -> None:
    import grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    with (
        start_service(tmp_path, RESIGHT_REFLECTION="false") as service,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter([request])))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
