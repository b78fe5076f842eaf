"""What a service leaves in a directory that everybody may enter is its user's alone."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from resight.client.connection import connect
from resight.v1 import gallery_service_pb2 as messages
from service.commands.config import app


@pytest.fixture
def used(
    tmp_path: Path, start_service: Callable[..., Any], make_jpeg: Callable[..., bytes]
) -> Path:
    """A data directory of mode 755 with crops, images, an index on disk and an audit."""
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    with start_service(data) as service:
        with connect(service.grpc) as connection:
            camera = {"camera_id": "c1"}
            connection.gallery.CreateCamera(
                messages.CreateCameraRequest(gallery="default", camera=camera)
            )
            request = messages.IngestCropsRequest(
                gallery="default",
                crop={**camera, "capture_time": {"seconds": 1_770_000_000}},
                image=make_jpeg(1),
            )
            assert len(list(connection.gallery.IngestCrops(iter([request])))) == 1
        assert service.stop() == 0
    return data


def open_to_others(data: Path) -> Iterator[Path]:
    """What they may read or enter, found from the top as they would."""
    for path in sorted(data.iterdir()):
        mode = path.lstat().st_mode
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield path
            if path.is_dir():
                yield from open_to_others(path)


def test_others_may_open_nothing(used: Path) -> None:
    names = {path.name for path in used.iterdir()}
    assert {"catalog.sqlite", "blobs", "bundles", "index", "lock"} <= names
    assert list(open_to_others(used)) == [used / "service.log"], "which the test itself writes"
    assert stat.S_IMODE(used.stat().st_mode) == 0o755, "the directory itself is somebody's"


def test_what_everybody_may_open_is_told(
    used: Path, tiny_bundle: Path, start_service: Callable[..., Any]
) -> None:
    (used / "catalog.sqlite").chmod(0o644)
    arguments = ["check", "--bundle", str(tiny_bundle), "--data", str(used)]
    done = CliRunner().invoke(app, [*arguments, "--grpc-port", "0", "--rest-port", "0"])
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("warning  data_dir")]
    assert "everybody may open catalog.sqlite;" in told
    assert f"chmod -R o-rwx {used}" in told
    with start_service(used) as service:
        assert service.crops == 1
        assert "everybody may open catalog.sqlite;" in service.log.read_text()
    for file in used.glob("catalog.sqlite*"):
        file.chmod(0o640)
    done = CliRunner().invoke(app, [*arguments, "--grpc-port", "0", "--rest-port", "0"])
    assert "may open" not in done.stdout, "groups are their owner's business"
