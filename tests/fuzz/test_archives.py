"""Bundles, snapshots and index files: mutated, and with members that would do harm."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from resight.bundle import open_bundle
from resight.bundle.calibration import load_calibration
from resight.bundle.layout import MANIFEST, MANIFEST_DIGEST, manifest_digest
from resight.errors import ResightError
from service.domain.ports import RowFilter
from service.gallery.index import SegmentedIndex
from service.gallery.index_folder import IndexFolder, LogMark, UnusableError
from service.settings import load_settings
from service.snapshot.container import opened
from service.snapshot.restoring import restore
from tests.e2e.conftest import serving
from tests.fuzz.conftest import TIMES, Target, count
from tests.fuzz.mutation import archive, flipped, hostile_members
from tests.service.gallery.test_index_folder import DIMENSION, SEGMENT_ROWS, made_index, made_rows

RESIGHT = Path(sys.executable).with_name("resight")


@pytest.fixture
def draw() -> random.Random:
    return random.Random(1 if TIMES == 1 else secrets.randbits(40))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(open_it: Callable[[], object], *, what: str) -> bool:
    """Whether it was refused with an error of ours; any other error fails the test."""
    count(what)
    try:
        open_it()
    except ResightError:
        return True
    return False


def used(bundle: Path) -> None:
    load_calibration(open_bundle(bundle))


def read_whole(snapshot: Path) -> None:
    with opened(snapshot) as reader:
        reader.verify("catalog")


def test_mutated_bundles(fuzzed_bundle: Path, tmp_path: Path, draw: random.Random) -> None:
    whole = archive(files_of(fuzzed_bundle))
    path = tmp_path / "bundle.tar"
    kept = 0
    for _ in range(400 * TIMES):
        path.write_bytes(flipped(whole, draw))
        kept += not refused(lambda: open_bundle(path, golden=False), what="bundle archives")
    # Padding of the archive may change, nothing else.
    assert kept < 400 * TIMES / 4


def test_bundles_whose_manifest_was_changed_on_purpose(
    fuzzed_bundle: Path, tmp_path: Path, draw: random.Random
) -> None:
    """With digests that fit: what is behind them must hold by itself."""
    folder = tmp_path / "bundle"
    shutil.copytree(fuzzed_bundle, folder)
    manifest = (folder / MANIFEST).read_bytes()
    document = json.loads(manifest)
    for number in range(400 * TIMES):
        if number % 2:
            data = flipped(manifest, draw)
        else:
            changed = json.loads(manifest)
            key = draw.choice(sorted(document))
            changed[key] = draw.choice(
                [None, "", "x", -1, 2**70, 1e308, [], {}, [[]], {"a": {}}, True, ["x"], [{}]]
            )
            data = json.dumps(changed).encode()
        (folder / MANIFEST).write_bytes(data)
        (folder / MANIFEST_DIGEST).write_bytes(manifest_digest(data))

        refused(partial(used, folder), what="bundle manifests with a right digest")


def test_mutated_graphs(fuzzed_bundle: Path, tmp_path: Path, draw: random.Random) -> None:
    """In a process of its own each time a block: ONNX Runtime is another's native code."""
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.fuzz.graphs",
            str(fuzzed_bundle), str(draw.getrandbits(30)), str(60 * TIMES),
        ],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True, text=True, timeout=200 * TIMES, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["unknown"] == []
    count("bundle graphs with right digests", told["tried"])


@pytest.mark.parametrize("name", hostile_members())
def test_members_that_would_do_harm(fuzzed_bundle: Path, tmp_path: Path, name: str) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "bundle.tar"
    try:
        path.write_bytes(archive(files_of(fuzzed_bundle), hostile_members()[name]))
    except (ValueError, OSError):
        pytest.skip("tarfile writes no such member")
    before = {entry.name for entry in tmp_path.iterdir()}
    taken = not refused(lambda: open_bundle(path, golden=False), what="hostile archive members")
    # Only what says the folder itself is nothing.
    assert not taken or name in {"dot", "empty name"}
    assert {entry.name for entry in tmp_path.iterdir()} == before
    assert not Path("/tmp/resight-escaped").exists()


def test_an_archive_that_says_it_is_huge(tmp_path: Path) -> None:
    info = tarfile.TarInfo("encoder.onnx")
    info.size = 2**40
    path = tmp_path / "bundle.tar"
    path.write_bytes(info.tobuf() + bytes(1024))
    assert refused(lambda: open_bundle(path), what="hostile archive members")


def test_mutated_index_files(tmp_path: Path, draw: random.Random) -> None:
    rows = made_rows(0, 40)
    folder = tmp_path / "index"

    def at(path: Path) -> IndexFolder:
        return IndexFolder(path, model_version="m-1", dimension=DIMENSION)

    at(folder).write(made_index(rows).snapshot, LogMark(7, "entry"))
    good = files_of(folder)
    query = rows[3].vector
    for _ in range(400 * TIMES):
        count("index files")
        name = draw.choice(sorted(good))
        (folder / name).write_bytes(flipped(good[name], draw))
        with suppress(UnusableError):
            restored = at(folder).read(segment_rows=SEGMENT_ROWS)
            index = SegmentedIndex(DIMENSION, segment_rows=SEGMENT_ROWS)
            for segment in restored.segments:
                index.adopt(segment)
            # What was adopted is as it was written.
            hits = index.search(query, 3, RowFilter(), None)
            known = {row.crop_id: row.vector for row in rows}
            for crop_id, score in zip(hits.ids, hits.scores, strict=True):
                assert np.isclose(score, known[crop_id] @ query, atol=1e-5)
        (folder / name).write_bytes(good[name])


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory, fuzzed_bundle: Path) -> Path:
    """A snapshot of a small service, as a folder."""
    root = tmp_path_factory.mktemp("snapshot")
    with serving(fuzzed_bundle, root / "data") as process:
        Target(process, {}).fill()
    output = root / "snapshot"
    subprocess.run(
        [RESIGHT, "gallery", "snapshot", "--data", root / "data", "--output", output],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    return output


def test_mutated_snapshots(snapshot: Path, tmp_path: Path, draw: random.Random) -> None:
    good = files_of(snapshot)
    restored = 0
    for number in range(60 * TIMES):
        changed = dict(good)
        name = draw.choice(sorted(good))
        changed[name] = flipped(good[name], draw)
        path = tmp_path / f"snapshot-{number}.tar"
        data = archive(changed) if number % 2 else flipped(archive(good), draw)
        path.write_bytes(data)
        settings = load_settings({"data_dir": tmp_path / f"restored-{number}"})
        restored += not refused(partial(restore, settings, path), what="snapshots")
        shutil.rmtree(tmp_path / f"restored-{number}", ignore_errors=True)
        path.unlink()
    assert restored < 60 * TIMES / 3


def test_snapshots_with_members_that_would_do_harm(snapshot: Path, tmp_path: Path) -> None:
    good = files_of(snapshot)
    for name, member in hostile_members().items():
        path = tmp_path / "snapshot.tar"
        try:
            path.write_bytes(archive(good, member))
        except (ValueError, OSError):
            continue
        settings = load_settings({"data_dir": tmp_path / "data" / name.replace(" ", "-")})
        refused(partial(restore, settings, path), what="hostile archive members")
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "data" / "escaped").exists()
    assert not Path("/tmp/resight-escaped").exists()


def test_any_bytes_are_no_snapshot(tmp_path: Path, draw: random.Random) -> None:
    for size in (0, 1, 511, 512, 513, 10_240):
        path = tmp_path / "snapshot.tar"
        path.write_bytes(draw.randbytes(size))
        assert refused(partial(read_whole, path), what="snapshots")
