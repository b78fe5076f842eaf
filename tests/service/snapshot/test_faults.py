"""Snapshots that are damaged, of the future, unwanted, or cut off in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resight.errors import DataLoss, FailedPrecondition, NotFound, ResightError, Unavailable
from service.snapshot import container, manifest
from service.snapshot.restoring import restore
from service.snapshot.taking import take

DYING = Path(__file__).parent / "dying_process.py"
ROOT = Path(__file__).parents[3]


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def untouched(data: Path) -> bool:
    """Whether nothing but the lock is there."""
    return not data.exists() or {path.name for path in data.iterdir()} <= {"lock"}


@pytest.fixture
def snapshot(tmp_path, place, filled) -> Path:
    here = place("here")
    filled(here)
    take(here, tmp_path / "s", images=True)
    return tmp_path / "s"


def test_one_flipped_bit_anywhere_is_refused(snapshot, place) -> None:
    there = place("there")
    for path in files(snapshot):
        whole = path.read_bytes()
        for position in (0, len(whole) // 3, len(whole) - 1):
            changed = bytearray(whole)
            changed[position] ^= 4
            path.write_bytes(changed)
            with pytest.raises(DataLoss, match=rf"{path.name} .*use another snapshot"):
                restore(there, snapshot)
            assert untouched(there.data_dir)
        path.write_bytes(whole)
    restore(there, snapshot)


def test_cut_and_missing_files_are_refused(snapshot, place) -> None:
    there = place("there")
    for path in files(snapshot):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(DataLoss, match=rf"{path.name}"):
            restore(there, snapshot)
        path.unlink()
        with pytest.raises(DataLoss, match=rf"{path.name} is missing"):
            restore(there, snapshot)
        path.write_bytes(whole)
    assert untouched(there.data_dir)
    with pytest.raises(NotFound, match="no snapshot at"):
        restore(there, snapshot.with_name("elsewhere"))


def test_a_damaged_archive_is_refused(tmp_path, place, filled) -> None:
    here, there = place("here"), place("there")
    filled(here)
    archive = tmp_path / "s.tar"
    take(here, archive, images=True)
    whole = archive.read_bytes()
    # Past the last file there is nothing but padding.
    for position in range(0, whole.rindex(b'"sha256"') + 90, max(1, len(whole) // 60)):
        archive.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            restore(there, archive)
        except DataLoss:
            assert untouched(there.data_dir)
        else:
            # The bit was of the padding between two files.
            shutil.rmtree(there.data_dir)
    for size in (0, 1, 511, 512, len(whole) // 2):
        archive.write_bytes(whole[:size])
        with pytest.raises(DataLoss, match="use another snapshot"):
            restore(there, archive)
    archive.write_bytes(whole)
    restore(there, archive)


def test_what_the_manifest_counts_is_compared(snapshot, place) -> None:
    """Somebody mends the digests after changing the content."""
    there = place("there")
    body = json.loads((snapshot / "snapshot.json").read_bytes())
    body["tables"]["crops"] += 1
    body.pop("sha256")
    text = json.dumps(body | {"sha256": manifest._digest(body)})
    (snapshot / "snapshot.json").write_text(text)
    with pytest.raises(DataLoss, match=r"catalog\.sqlite does not hold what the manifest says"):
        restore(there, snapshot)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"format": 2}, "has format 2 .* reads up to 1"), ({"schema": "9999"}, "has schema 9999")],
)
def test_a_newer_snapshot_is_refused(snapshot, place, change, said) -> None:
    there = place("there")
    body = json.loads((snapshot / "snapshot.json").read_bytes()) | change
    body.pop("sha256")
    text = json.dumps(body | {"sha256": manifest._digest(body)})
    (snapshot / "snapshot.json").write_text(text)
    with pytest.raises(FailedPrecondition, match=f"{said}.*version.*later one") as caught:
        restore(there, snapshot)
    assert caught.value.reason == "SNAPSHOT_NEWER"
    assert untouched(there.data_dir)


def test_a_manifest_cannot_name_files_outside(snapshot, place) -> None:
    there = place("there")
    body = json.loads((snapshot / "snapshot.json").read_bytes())
    body["files"]["../../escaped.tar"] = body["files"]["catalog.sqlite"]
    body.pop("sha256")
    text = json.dumps(body | {"sha256": manifest._digest(body)})
    (snapshot / "snapshot.json").write_text(text)
    with pytest.raises(DataLoss):
        restore(there, snapshot)


def test_a_manifest_that_is_nested_too_deeply_is_refused(snapshot, place) -> None:
    (snapshot / "snapshot.json").write_bytes(b"[" * 30_000)
    with pytest.raises(DataLoss, match="not as it was written"):
        restore(place("there"), snapshot)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_target_that_is_not_empty_is_refused(snapshot, place, filled, rows, kind) -> None:
    there = place("there", kind)
    filled(there)
    before = rows(there)
    with pytest.raises(FailedPrecondition, match=r"is there already; .* empty") as caught:
        restore(there, snapshot)
    assert caught.value.reason == "RESTORE_TARGET_NOT_EMPTY"
    assert rows(there) == before


@pytest.mark.parametrize(
    "name", ["catalog.sqlite-wal", "blobs/default/00/x", "bundles/default/x.tar", "bundle.tar"]
)
def test_every_part_of_the_target_must_be_empty(snapshot, place, name) -> None:
    there = place("there")
    path = there.data_dir / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something")
    with pytest.raises(FailedPrecondition, match="is there already"):
        restore(there, snapshot)
    assert path.read_bytes() == b"something"
    assert not (there.data_dir / "catalog.sqlite").exists()


def test_a_snapshot_replaces_nothing(snapshot, place) -> None:
    with pytest.raises(FailedPrecondition, match="exists; a snapshot replaces nothing"):
        take(place("here"), snapshot, images=False)


def test_a_full_disk_leaves_nothing(tmp_path, place, filled, monkeypatch) -> None:
    here = place("here")
    filled(here)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(container.os, "fsync", full)
        with pytest.raises(Unavailable, match=r"cannot be written .*make room"):
            take(here, tmp_path / "out" / "s", images=True)
    assert list((tmp_path / "out").iterdir()) == []


def run(work: str, settings, snapshot: Path, step: int) -> bool:
    """Whether the process came to its end before that step."""
    arguments = [work, settings.data_dir, settings.resolved_database_url(), snapshot, step]
    ended = subprocess.run(
        [sys.executable, DYING, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
    return ended.returncode == 0


@pytest.mark.parametrize("name", ["s", "s.tar"])
def test_a_killed_snapshot_leaves_none(tmp_path, place, filled, name) -> None:
    here, there = place("here"), place("there")
    filled(here)
    target = tmp_path / "out" / name
    for step in range(0, 100, 2):
        if run("take", here, target, step):
            break
        if target.exists():
            # Killed after it had its name: it is whole.
            restore(there, target)
            shutil.rmtree(there.data_dir)
            shutil.rmtree(target) if target.is_dir() else target.unlink()
    assert step > 4
    assert [path.name for path in target.parent.iterdir()] == [name], "leftovers were removed"
    restore(there, target)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_killed_restore_says_so_and_is_begun_again(
    snapshot, place, serving, rows, answers, kind
) -> None:
    source, there = place("here"), place("there", kind)
    expected = rows(source)

    async def served() -> object:
        async with serving(there) as application:
            return await answers(application)

    finished = False
    for step in range(100):
        if finished := run("restore", there, snapshot, step):
            break
        if step == 0:
            shutil.rmtree(next(there.data_dir.glob(".restoring-*")))
            assert untouched(there.data_dir), "nothing was begun"
            continue
        with pytest.raises(ResightError, match=r"restore not finished.*gallery restore.* again"):
            asyncio.run(served())
    assert finished
    assert step > 4
    assert rows(there) == expected
    assert not list(there.data_dir.glob(".restoring-*"))
    assert asyncio.run(served())


def test_a_damaged_ledger_is_said_before_anything_is_written(snapshot, place) -> None:
    there = place("there")
    ledger = there.data_dir / "erasures" / "a.ledger"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(b"default nonsense\n")
    with pytest.raises(FailedPrecondition, match="line 1 of the erasure ledger"):
        restore(there, snapshot)
    assert {path.name for path in there.data_dir.iterdir()} == {"lock", "erasures"}
