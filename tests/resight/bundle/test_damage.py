"""Every way in which a bundle can be wrong, and how it is refused."""

from __future__ import annotations

import base64
import hashlib
import io
import json
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

from resight.bundle import Bundle, open_bundle, pack, verify_golden
from resight.errors import BundleCorrupt, InvalidArgument, ResightError

Write = Callable[..., Bundle]


def reseal(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the manifest and its digest together: what no digest can detect."""
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    line = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
    (folder / "manifest.sha256").write_text(line)


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


def negated(manifest: dict[str, Any]) -> str:
    values = np.frombuffer(base64.b64decode(manifest["golden"]["embeddings"]), "<f4")
    return base64.b64encode((-values).tobytes()).decode()


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


def negate(encoder: bytes) -> bytes:
    import onnx
    from onnx import helper

    model = onnx.load_model_from_string(encoder)
    model.graph.node[-1].output[0] = "positive"
    model.graph.node.append(helper.make_node("Neg", ["positive"], ["embeddings"]))
    return bytes(model.SerializeToString())


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
