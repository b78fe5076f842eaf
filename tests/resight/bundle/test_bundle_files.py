"""Writing, opening and every way in which a bundle can be wrong."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resight.bundle import Bundle, golden_inputs, open_bundle, pack, verify_golden, write_bundle
from resight.crops import Preprocessing
from resight.errors import AlreadyExists, BundleCorrupt, InvalidArgument, NotFound, ResightError

Write = Callable[..., Bundle]


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest and its digest together: what no digest can detect."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    line = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    (folder / "manifest.sha256").write_text(line)


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


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found_and_the_file_named(
    data: st.DataObject, write: Write, tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    if not folder.exists():
        write(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 5
    path = data.draw(st.sampled_from(files))
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        with pytest.raises(BundleCorrupt) as caught:
            open_bundle(folder, golden=False)
        name = path.relative_to(folder).as_posix()
        assert name in caught.value.message
        assert caught.value.field in {name, "manifest.json"}
    finally:
        path.write_bytes(original)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_tar_gives_the_same_files_or_is_refused(
    data: st.DataObject, write: Write, tmp_path: Path
) -> None:
    archive = tmp_path / "b.tar"
    if not archive.exists():
        write(archive)
        shutil.copy(archive, tmp_path / "kept.tar")
    original = (tmp_path / "kept.tar").read_bytes()
    damaged = bytearray(original)
    place = data.draw(st.integers(0, len(original) - 1))
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        damaged = damaged[:place]
    archive.write_bytes(damaged)
    try:
        opened = open_bundle(archive, golden=False)
    except ResightError:
        return
    # Only padding and times may differ unseen; every file is as it was written.
    kept = open_bundle(tmp_path / "kept.tar", golden=False)
    assert opened.manifest == kept.manifest


@pytest.mark.parametrize(
    "name",
    ["encoder.onnx", "model_card.md", "extra/notes.txt", "manifest.sha256"],
)
def test_a_missing_file_is_named(write: Write, tmp_path: Path, name: str) -> None:
    write(tmp_path / "b")
    (tmp_path / "b" / name).unlink()
    with pytest.raises(BundleCorrupt, match="missing") as caught:
        open_bundle(tmp_path / "b")
    assert caught.value.field == name


def test_a_cut_or_lengthened_file_is_named(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    path = tmp_path / "b" / "encoder.onnx"
    whole = path.read_bytes()
    for changed in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(changed)
        with pytest.raises(BundleCorrupt, match=r"encoder\.onnx: it has"):
            open_bundle(tmp_path / "b")


@pytest.mark.parametrize("name", ["extra.py", ".hidden", "engines/x.plan"])
def test_an_unlisted_file_is_refused(write: Write, tmp_path: Path, name: str) -> None:
    write(tmp_path / "b")
    (tmp_path / "b" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "b" / name).write_bytes(b"x")
    with pytest.raises(BundleCorrupt, match="does not list it") as caught:
        open_bundle(tmp_path / "b")
    assert caught.value.field == name


def test_links_inside_a_bundle_are_refused(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    encoder = tmp_path / "b" / "encoder.onnx"
    encoder.rename(tmp_path / "outside.onnx")
    encoder.symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(BundleCorrupt, match="link"):
        open_bundle(tmp_path / "b")


def test_a_link_to_a_bundle_is_followed(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "b")
    (tmp_path / "current").symlink_to(tmp_path / "b")
    assert open_bundle(tmp_path / "current").dimension == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(formatVersion=2), "formatVersion is 2"),
        (lambda m: m.pop("formatVersion"), "formatVersion is None"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.update(dimension="many"), "dimension"),
        (lambda m: m.update(dimension=6), "dimension is 6"),
        (lambda m: m.update(modelVersion="0" * 16), "model_version"),
        (lambda m: m["preprocessing"].update(height=17), "model_version"),
        (lambda m: m["preprocessing"].update(height=-1), "height"),
        (lambda m: m["preprocessing"].update(resizeFilter="lanczos"), "lanczos"),
        (lambda m: m["golden"].update(minCosine=-1), "min_cosine"),
        (lambda m: m["golden"].update(minCosine="NaN"), "min_cosine"),
        (lambda m: m["golden"].update(count=10**6), "golden.count"),
        (lambda m: m["golden"].update(seed="1"), "golden outputs differ"),
        (lambda m: m["golden"].update(embeddings=""), "golden.embeddings"),
        (lambda m: m["golden"].update(embeddings=negated(m)), "golden outputs differ"),
        (lambda m: m.pop("golden"), "golden"),
        (lambda m: m["files"][0].update(path="../manifest.json"), "inside the bundle"),
        (lambda m: m["files"][0].update(path="/etc/passwd"), "inside the bundle"),
        (lambda m: m["files"][0].update(path="extra/../encoder.onnx"), "inside the bundle"),
        (lambda m: m["files"][0].update(path="C:\\encoder.onnx"), "inside the bundle"),
        (lambda m: m["files"].append(m["files"][0]), "twice"),
        (lambda m: m["files"].append({"path": "manifest.json"}), "twice"),
        (lambda m: m.pop("files"), r"no encoder\.onnx"),
    ],
)
def test_a_sealed_but_wrong_manifest_is_refused(
    write: Write, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write(tmp_path / "b")
    reseal(tmp_path / "b", change)
    with pytest.raises(BundleCorrupt, match=message):
        open_bundle(tmp_path / "b")


def negated(manifest: dict[str, Any]) -> str:
    values = np.frombuffer(base64.b64decode(manifest["golden"]["embeddings"]), "<f4")
    return base64.b64encode((-values).tobytes()).decode()


@pytest.mark.parametrize("text", [b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_sealed_manifest_that_is_no_manifest_is_refused(
    write: Write, tmp_path: Path, text: bytes
) -> None:
    write(tmp_path / "b")
    (tmp_path / "b" / "manifest.json").write_bytes(text)
    line = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    (tmp_path / "b" / "manifest.sha256").write_text(line)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json"):
        open_bundle(tmp_path / "b")


def test_another_graph_under_a_recomputed_manifest_fails_its_golden_outputs(
    write: Write, parts: dict[str, Any], tmp_path: Path
) -> None:
    """Version and digests made to fit: only running the graph can tell."""
    write(tmp_path / "b")
    write(tmp_path / "other", encoder=negate(parts["encoder"]))
    foreign = (tmp_path / "other" / "encoder.onnx").read_bytes()
    (tmp_path / "b" / "encoder.onnx").write_bytes(foreign)
    canonical = b'{"height":16,"resize_filter":"bilinear","width":8}'

    def fit(manifest: dict[str, Any]) -> None:
        entry = next(e for e in manifest["files"] if e["path"] == "encoder.onnx")
        entry |= {"sha256": hashlib.sha256(foreign).hexdigest(), "sizeBytes": str(len(foreign))}
        manifest["modelVersion"] = hashlib.sha256(foreign + canonical).hexdigest()[:16]

    reseal(tmp_path / "b", fit)
    open_bundle(tmp_path / "b", golden=False)
    with pytest.raises(BundleCorrupt, match="golden outputs differ"):
        open_bundle(tmp_path / "b")


def negate(encoder: bytes) -> bytes:
    import onnx
    from onnx import helper

    model = onnx.load_model_from_string(encoder)
    model.graph.node[-1].output[0] = "positive"
    model.graph.node.append(helper.make_node("Neg", ["positive"], ["embeddings"]))
    return bytes(model.SerializeToString())


def test_what_is_no_bundle_is_told_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="nothing at"):
        open_bundle(tmp_path / "absent")
    with pytest.raises(InvalidArgument, match="it is no bundle"):
        open_bundle(tmp_path)
    (tmp_path / "x.tar").write_bytes(b"no tar")
    with pytest.raises(BundleCorrupt, match="uncompressed tar"):
        open_bundle(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        tar.add(tmp_path / "x.tar", "encoder.onnx")
    with pytest.raises(BundleCorrupt, match="uncompressed tar"):
        open_bundle(tmp_path / "x.tgz")


def hostile(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    "member",
    [
        hostile("../escaped"),
        hostile("a/../../escaped"),
        hostile("/tmp/escaped"),
        hostile("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        hostile("link", type=tarfile.LNKTYPE, linkname="manifest.json"),
        hostile("device", type=tarfile.CHRTYPE),
        hostile("pipe", type=tarfile.FIFOTYPE),
        hostile("manifest.json"),
        hostile("bomb", size=2**50),
    ],
)
def test_hostile_tar_members_are_refused(
    write: Write, tmp_path: Path, member: tarfile.TarInfo
) -> None:
    write(tmp_path / "b")
    archive = tmp_path / "b.tar"
    pack(tmp_path / "b", archive)
    with tarfile.open(archive, "a") as tar:
        size, member.size = member.size, 0
        tar.addfile(member, io.BytesIO())
        if size:
            member.size = size
            tar.fileobj.seek(tar.offset - 512)  # type: ignore[union-attr]
            tar.fileobj.write(member.tobuf())  # type: ignore[union-attr]
        member.size = size
    with pytest.raises(BundleCorrupt):
        open_bundle(archive)
    assert not (tmp_path / "escaped").exists()
    assert not Path("/tmp/escaped").exists()


def test_a_pickle_in_a_bundle_is_never_loaded(write: Write, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    bundle = write(tmp_path / "b", extra_files={"weights.pkl": pickle.dumps(Trap())})
    verify_golden(bundle)
    open_bundle(tmp_path / "b")
    assert not (tmp_path / "sprung").exists()


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
