"""Bundles are written whole or not at all, and read back as they were written."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resight.bundle import Bundle, golden_inputs, open_bundle, pack, write_bundle
from resight.crops import Preprocessing
from resight.errors import AlreadyExists, InvalidArgument, NotFound

Write = Callable[..., Bundle]


def test_what_is_written_is_read_back(write: Write, parts: dict[str, Any], tmp_path: Path) -> None:
    written = write(tmp_path / "b")
    for bundle in (written, open_bundle(tmp_path / "b"), open_bundle(str(tmp_path / "b"))):
        assert bundle.preprocessing == parts["preprocessing"]
        assert bundle.dimension == 5
        assert bundle.encoder_path.read_bytes() == parts["encoder"]
        assert bundle.file("extra/notes.txt").read_bytes() == b"four\n"
        assert bundle.manifest.provenance.run_id == "run-1"
        assert bundle.manifest.parity[0].batch_size == 1
        assert "Usage policy" in bundle.file("model_card.md").read_text()
    with pytest.raises(NotFound, match=r"encoder\.onnx"):
        written.file("../outside")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_digests_are_those_of_the_standard_tool(write: Write, tmp_path: Path) -> None:
    bundle = write(tmp_path / "b")
    listed = {entry.path: entry.sha256 for entry in bundle.manifest.files}
    assert listed == {
        name: hashlib.sha256((tmp_path / "b" / name).read_bytes()).hexdigest()
        for name in ("encoder.onnx", "model_card.md", "extra/notes.txt")
    }
    digest, name = (tmp_path / "b" / "manifest.sha256").read_text().split()
    assert digest == hashlib.sha256((tmp_path / "b" / name).read_bytes()).hexdigest()


def test_the_version_names_graph_and_preprocessing_and_nothing_else(
    write: Write, parts: dict[str, Any], tmp_path: Path
) -> None:
    canonical = b'{"height":16,"resize_filter":"bilinear","width":8}'
    expected = hashlib.sha256(parts["encoder"] + canonical).hexdigest()[:16]
    assert write(tmp_path / "a").model_version == expected
    other = write(tmp_path / "b", model_card="another", extra_files={"engines/x.plan": b"1"})
    assert other.model_version == expected
    bicubic = write(tmp_path / "c", preprocessing=Preprocessing(16, 8, "bicubic"))
    assert bicubic.model_version != expected


def test_a_tar_is_as_good_as_a_folder(write: Write, tmp_path: Path) -> None:
    folder = write(tmp_path / "b")
    archived = write(tmp_path / "b.tar")
    assert archived.model_version == folder.model_version
    assert open_bundle(tmp_path / "b.tar").encoder_path.is_file()
    pack(tmp_path / "b", tmp_path / "one.tar")
    os.utime(tmp_path / "b" / "encoder.onnx", (1, 1))
    pack(tmp_path / "b", tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "nested.tar", "w") as tar:
        tar.add(tmp_path / "b", "osnet")
    assert open_bundle(tmp_path / "nested.tar").model_version == folder.model_version


def test_a_link_to_a_bundle_is_followed(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    (tmp_path / "current").symlink_to(tmp_path / "b")
    assert open_bundle(tmp_path / "current").dimension == 5


def test_nothing_is_overwritten_unasked(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    before = (tmp_path / "b" / "manifest.json").read_bytes()
    with pytest.raises(AlreadyExists, match="overwrite"):
        write(tmp_path / "b", model_card="new")
    assert (tmp_path / "b" / "manifest.json").read_bytes() == before
    write(tmp_path / "b", model_card="new", overwrite=True)
    assert (tmp_path / "b" / "model_card.md").read_text() == "new"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(AlreadyExists, match="not a bundle"):
        write(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "a.jpg").exists()
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "empty", "photos"]


@pytest.mark.parametrize("name", ["b", "b.tar"])
def test_a_failed_write_leaves_nothing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    calls = []

    def fail(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_bundle(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = write(tmp_path / "b").model_version
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if Path(source).name == "bundle":
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input"):
        write(tmp_path / "b", model_card="new", overwrite=True)
    assert open_bundle(tmp_path / "b").model_version == old
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../x", "a\\x", "", ".", "manifest.json", "encoder.onnx", "a\nb"]
)
def test_names_that_leave_the_bundle_are_not_written(
    write: Write, tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidArgument):
        write(tmp_path / "b", extra_files={name: b""})


@pytest.mark.parametrize("encoder", [b"", b"not onnx"])
def test_an_encoder_that_does_not_load_is_not_written(
    write: Write, tmp_path: Path, encoder: bytes
) -> None:
    with pytest.raises(InvalidArgument, match="encoder"):
        write(tmp_path / "b", encoder=encoder)


def test_an_unwrapped_encoder_is_not_written(
    write: Write, linear: Callable[..., Any], tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match="resight bundle import"):
        write(tmp_path / "b", encoder=linear().model)
    with pytest.raises(InvalidArgument, match="input must be images"):
        write(tmp_path / "b", preprocessing=Preprocessing(8, 16))


def test_golden_inputs_are_fixed_for_ever() -> None:
    """A change of these pixels would refuse every bundle ever written."""
    images = golden_inputs(0, 4, Preprocessing(256, 128))
    assert images.shape == (4, 256, 128, 3)
    assert images.dtype == np.uint8
    digest = hashlib.sha256(images.tobytes()).hexdigest()
    assert digest == "f2d0521f953b9a56dd11ff912b8256c780c81169346a3a5fd830ef1968cf9d1c"
    np.testing.assert_array_equal(golden_inputs(0, 1, Preprocessing(256, 128)), images[:1])
    assert (golden_inputs(1, 4, Preprocessing(256, 128)) != images).any()
    assert len({image.tobytes() for image in images}) == 4
    assert golden_inputs(0, 2, Preprocessing(5, 3)).shape == (2, 5, 3, 3)


def test_the_same_parts_give_the_same_archive(parts: dict[str, Any], tmp_path: Path) -> None:
    provenance = parts["provenance"]
    provenance.create_time.FromSeconds(1_700_000_000)
    for name in ("a.tar", "b.tar"):
        write_bundle(tmp_path / name, **(parts | {"provenance": provenance}))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
