"""Key and purpose of a client: where they come from, what is sent, and that no key is shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import grpc
import pytest
import typer

from resight import cli
from resight.client import caller, shared_options
from resight.client.connection import connect
from resight.errors import InvalidArgument
from resight.v1 import gallery_service_pb2 as messages
from resight.v1 import gallery_service_pb2_grpc

KEY = "rsk_0123456789abcdef_" + "A" * 43
NAMES = (caller.API_KEY, caller.API_KEY_FILE, caller.PURPOSE)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(shared_options, "_chosen", {})


def said(**arguments: Any) -> dict[str, str]:
    return dict(caller.caller_metadata(**arguments)())


def test_nothing_is_said_without_a_key_and_a_purpose() -> None:
    assert said() == {}


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(caller.API_KEY, KEY)
    monkeypatch.setenv(caller.PURPOSE, "case 12: café")
    assert said() == {
        "authorization": f"Bearer {KEY}",
        "resight-purpose": "case%2012%3A%20caf%C3%A9",
    }
    monkeypatch.delenv(caller.API_KEY)
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv(caller.API_KEY_FILE, str(tmp_path / "key"))
    assert said(purpose="") == {"authorization": f"Bearer {KEY}"}


def test_an_argument_comes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(caller.API_KEY, "another")
    (tmp_path / "key").write_text(KEY)
    assert said(api_key_file=tmp_path / "key")["authorization"] == f"Bearer {KEY}"


def test_a_replaced_file_counts_and_a_lost_one_does_not(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first")
    metadata = caller.caller_metadata(api_key_file=file)
    file.write_text("second")
    assert dict(metadata())["authorization"] == "Bearer second"
    file.unlink()
    assert dict(metadata())["authorization"] == "Bearer second"


def test_two_keys_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(caller.API_KEY, KEY)
    monkeypatch.setenv(caller.API_KEY_FILE, "/nowhere")
    with pytest.raises(InvalidArgument, match="both set"):
        said()


@pytest.mark.parametrize(
    "bad", [f"{KEY} {KEY}", f'"{KEY}"', f"{KEY}\nx", "", KEY + "é", "a" * 17_000]
)
def test_what_can_be_no_key_is_refused_unseen(bad: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(bad, encoding="utf-8")
    with pytest.raises(InvalidArgument) as refused:
        said(api_key_file=tmp_path / "key")
    assert "rsk_0123" not in str(refused.value)
    assert str(tmp_path / "key") in str(refused.value)


def test_a_missing_file_and_a_long_purpose_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="No such file"):
        said(api_key_file=Path("/nowhere/key"))
    with pytest.raises(InvalidArgument, match="purpose"):
        said(purpose="x" * 201)


@pytest.mark.parametrize(
    ("target", "near"),
    [
        ("127.0.0.1:7443", True), ("localhost:7443", True), ("[::1]:7443", True),
        ("127.8.8.8:1", True), ("unix:/run/resight", True), ("10.0.0.5:7443", False),
        ("resight.example:7443", False), ("[2001:db8::1]:7443", False), ("localhost.evil:1", False),
    ],
)  # fmt: skip
def test_a_key_in_plaintext_to_elsewhere_is_warned_of(target: str, near: bool) -> None:
    assert (caller.exposure(target) is None) == near


class _Hearing(gallery_service_pb2_grpc.GalleryServiceServicer):
    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    def _hear(self, context: Any) -> None:
        self.heard.append(dict(context.invocation_metadata()))

    def GetGalleryStats(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        self._hear(context)
        return messages.GetGalleryStatsResponse(crops=len(self.heard))

    def VerifyGallery(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: ARG002, N802
        self._hear(context)
        yield messages.VerifyGalleryResponse()

    def IngestCrops(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self._hear(context)
        for _ in request_iterator:
            yield messages.IngestCropsResponse()


@pytest.fixture
def hearing() -> Iterator[tuple[str, _Hearing]]:
    server = grpc.server(ThreadPoolExecutor(2))
    servicer = _Hearing()  # type: ignore[abstract]
    gallery_service_pb2_grpc.add_GalleryServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", servicer
    server.stop(None)


def test_every_kind_of_call_says_it(hearing: tuple[str, _Hearing], tmp_path: Path) -> None:
    target, servicer = hearing
    (tmp_path / "key").write_text(KEY)
    metadata = caller.caller_metadata(api_key_file=tmp_path / "key", purpose="why")
    with connect(target, metadata=metadata) as connection:
        gallery = connection.gallery
        gallery.GetGalleryStats(messages.GetGalleryStatsRequest(), metadata=(("own", "kept"),))
        list(gallery.VerifyGallery(messages.VerifyGalleryRequest()))
        list(gallery.IngestCrops(iter([messages.IngestCropsRequest()])))
    assert len(servicer.heard) == 3
    for heard in servicer.heard:
        assert heard["authorization"] == f"Bearer {KEY}"
        assert heard["resight-purpose"] == "why"
    assert servicer.heard[0]["own"] == "kept"


def test_a_command_hands_its_options_on(hearing: tuple[str, _Hearing], tmp_path: Path) -> None:
    target, servicer = hearing
    (tmp_path / "key").write_text(KEY)
    command = [sys.executable, "-c", "from resight.cli import main; main()", "gallery", "stats"]
    command += ["--target", target, "--api-key-file", str(tmp_path / "key"), "--purpose", "a why"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert '"crops": 1' in done.stdout
    assert servicer.heard[0]["authorization"] == f"Bearer {KEY}"
    assert servicer.heard[0]["resight-purpose"] == "a%20why"
    assert KEY not in done.stdout + done.stderr


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    for name, child in children.items():
        yield from _commands(child, f"{path} {name}")
    if not children:
        yield path, command


def test_every_command_with_a_target_takes_a_key() -> None:
    found = {}
    for point in entry_points(group="resight.commands"):
        loaded = typer.main.get_command(point.load())
        with_target = {
            path
            for path, command in _commands(loaded, point.name)
            if any(parameter.name == "target" for parameter in command.params)
        }
        for path, command in _commands(cli._load(point.name), point.name):
            if path in with_target:
                found[path] = {parameter.name for parameter in command.params}
    assert {"search", "track", "ingest", "adapt nightly", "gallery stats"} <= found.keys()
    for path, names in found.items():
        assert {"api_key_file", "purpose"} <= names, path
