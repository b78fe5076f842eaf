"""Adding to a bundle: the version stays, everything is verified, a crash leaves a whole bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from resight.bundle import Bundle, open_bundle
from resight.bundle.attachments import Attachments, attach
from resight.errors import BundleCorrupt, InvalidArgument
from resight.v1 import bundle_pb2

Write = Callable[..., Bundle]


def engine(path: str, batch: int = 8, data: bytes = b"plan") -> Attachments:
    return Attachments(
        files={path: data},
        engines=[bundle_pb2.Engine(path=path, backend="tensorrt", max_batch=batch)],
    )


@pytest.mark.parametrize("name", ["b", "b.tar"])
def test_what_is_attached_is_read_back_and_the_version_stays(
    write: Write, tmp_path: Path, name: str
) -> None:
    before = write(tmp_path / name)
    calibration = bundle_pb2.ScoreCalibration(slope=3)
    attach(tmp_path / name, Attachments(calibration=calibration))
    attach(tmp_path / name, engine("engines/a.plan"))
    attach(tmp_path / name, engine("engines/b.plan"))
    after = open_bundle(tmp_path / name)
    assert after.model_version == before.model_version
    assert [entry.path for entry in after.manifest.engines] == ["engines/a.plan", "engines/b.plan"]
    assert after.file("engines/a.plan").read_bytes() == b"plan"
    assert after.file("extra/notes.txt").read_bytes() == b"four\n"
    assert after.manifest.calibration == calibration
    assert after.manifest.golden == before.manifest.golden
    assert after.manifest.provenance == before.manifest.provenance
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_the_same_name_replaces_file_and_description(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b", attachments=engine("engines/a.plan", 8))
    attach(tmp_path / "b", engine("engines/a.plan", 32, b"other"))
    bundle = open_bundle(tmp_path / "b")
    assert [entry.max_batch for entry in bundle.manifest.engines] == [32]
    assert bundle.file("engines/a.plan").read_bytes() == b"other"
    assert bundle.manifest.parity[0].batch_size == 1  # the encoder's own figures stay


def test_the_encoder_and_the_manifest_cannot_be_replaced(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    for name in ("encoder.onnx", "manifest.json", "manifest.sha256", "../out", "/out"):
        with pytest.raises(InvalidArgument):
            attach(tmp_path / "b", Attachments(files={name: b""}))
    attach(tmp_path / "b", Attachments(files={"model_card.md": b"# other"}))
    assert open_bundle(tmp_path / "b").file("model_card.md").read_bytes() == b"# other"


def test_a_damaged_bundle_is_not_resealed(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    (tmp_path / "b" / "extra" / "notes.txt").write_bytes(b"five\n")
    with pytest.raises(BundleCorrupt, match=r"notes\.txt"):
        attach(tmp_path / "b", engine("engines/a.plan"))
    with pytest.raises(InvalidArgument, match="bundle"):
        attach(tmp_path / "nowhere" / "b", engine("engines/a.plan"))


def test_a_failed_attachment_leaves_the_old_bundle(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(tmp_path / "b").manifest
    move = os.replace
    calls: list[Any] = []

    def fail(source: Any, target: Any) -> None:
        calls.append(source)
        if len(calls) == 2:  # the new folder taking the old one's place
            raise OSError("no space")
        move(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        attach(tmp_path / "b", engine("engines/a.plan"))
    monkeypatch.undo()
    assert open_bundle(tmp_path / "b").manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_files_are_taken_over_where_links_are_not_to_be_had(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "b")

    def refuse(source: Any, target: Any) -> None:
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    attach(tmp_path / "b", engine("engines/a.plan"))
    assert open_bundle(tmp_path / "b").file("engines/a.plan").is_file()


def test_two_builders_at_once_lose_nothing(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    names = {f"engines/{number}.plan" for number in range(8)}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: attach(tmp_path / "b", engine(name)), sorted(names)))
    assert {entry.path for entry in open_bundle(tmp_path / "b").manifest.engines} == names
