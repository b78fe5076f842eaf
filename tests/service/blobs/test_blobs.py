"""Blob stores: a folder and an fsspec file system behave the same."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from resight.errors import FailedPrecondition, InvalidArgument
from service.blobs import FolderBlobStore, RemoteBlobStore, open_blob_store


@pytest.fixture(params=["folder", "memory"])
def store(request, tmp_path: Path):
    url = f"file://{tmp_path}/with space" if request.param == "folder" else "memory://bucket/x"
    return open_blob_store(url.replace(" ", "%20"))


def test_a_blob_is_kept_replaced_and_removed(store) -> None:
    with pytest.raises(KeyError):
        store.get("g/ab/1")
    store.put("g/ab/1", b"one")
    store.put("g/cd/2", b"")
    store.put("g/ab/1", b"uno")
    assert store.get("g/ab/1") == b"uno"
    assert store.get("g/cd/2") == b""
    assert sorted(store.keys()) == ["g/ab/1", "g/cd/2"]
    store.delete("g/ab/1")
    store.delete("g/ab/1")
    assert list(store.keys()) == ["g/cd/2"]
    store.delete("g/cd/2")


def test_many_blobs_are_stored_at_once(store) -> None:
    store.put("g/ab/1", b"old")
    many = [("g/ab/1", b"one"), ("g/cd/2", b""), ("h/ab/3", b"3" * 100_000)]
    store.put_all(many)
    assert {key: store.get(key) for key in store.keys()} == dict(many)  # noqa: SIM118
    store.put_all([])
    for key, _ in many:
        store.delete(key)


def test_many_blobs_are_removed_at_once(store: Any) -> None:
    keys = [f"g/{number % 7:02}/{number}" for number in range(50)]
    store.put_all([(key, b"x") for key in [*keys, "g/00/stays"]])
    store.delete_all([*keys[:20], "g/00/never", keys[0], *keys[20:]])
    assert list(store.keys()) == ["g/00/stays"]
    store.delete_all([])
    store.delete("g/00/stays")


class Refusing:
    """Stands before a file system: requests to remove meet in groups, and some are refused."""

    def __init__(self, files: Any, meet: int, refused: str = "") -> None:
        self.asked: list[str] = []
        self._files = files
        self._meeting = threading.Barrier(meet)
        self._refused = refused

    def rm_file(self, path: str) -> None:
        self.asked.append(path)
        self._meeting.wait(120)
        if self._refused and path.endswith(self._refused):
            raise PermissionError("locked")
        self._files.rm_file(path)


def test_some_are_removed_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    store = RemoteBlobStore("memory://bucket/side-by-side")
    keys = [f"g/ab/{number}" for number in range(16)]
    store.put_all([(key, b"x") for key in keys])
    # Were there one at a time, none would come back.
    monkeypatch.setattr(store, "_files", Refusing(store._files, 4))
    store.delete_all(keys)
    monkeypatch.undo()
    assert list(store.keys()) == []


@pytest.mark.parametrize("refused", ["/0", "/7", "/39"])
def test_one_that_is_refused_is_an_error(monkeypatch: pytest.MonkeyPatch, refused: str) -> None:
    store = RemoteBlobStore(f"memory://bucket/refused{refused}")
    keys = [f"g/ab/{number}" for number in range(40)]
    store.put_all([(key, b"x") for key in keys])
    refusing = Refusing(store._files, 1, refused)
    monkeypatch.setattr(store, "_files", refusing)
    with pytest.raises(OSError, match="locked"):
        store.delete_all(keys)
    assert any(path.endswith(refused) for path in refusing.asked)
    monkeypatch.undo()
    assert f"g/ab{refused}" in store.keys()  # noqa: SIM118
    store.delete_all(keys)
    assert list(store.keys()) == []


def test_a_store_that_is_away_is_not_asked_for_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = RemoteBlobStore("memory://bucket/away")
    asked: list[str] = []

    def rm_file(path: str) -> None:
        asked.append(path)
        raise OSError("no route to host")

    monkeypatch.setattr(store._files, "rm_file", rm_file)
    with pytest.raises(OSError, match="no route"):
        store.delete_all([str(number) for number in range(1000)])
    assert 1 <= len(asked) <= 8


def test_many_files_are_flushed_before_they_are_named_and_their_folders_after(
    tmp_path: Path, monkeypatch
) -> None:
    store = FolderBlobStore(tmp_path)
    flushed: list[Path] = []
    flush = os.fsync

    def watched(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        named = [key for key in ("g/ab/1", "g/cd/2") if (tmp_path / key).exists()]
        # A name before its content is safe would be a file of zeros after a power cut.
        assert path.is_dir() or not named
        flushed.append(path)
        flush(handle)

    monkeypatch.setattr(os, "fsync", watched)
    store.put_all([("g/ab/1", b"one"), ("g/cd/2", b"two")])
    assert sum(path.parent.name == ".writing" for path in flushed) == 2
    assert {tmp_path / "g/ab", tmp_path / "g/cd"} <= set(flushed)
    # Made on the way: they must not be lost either.
    assert {tmp_path, tmp_path / "g"} <= set(flushed)


@pytest.mark.parametrize("fails", ["removing another", "the flush"])
def test_what_was_removed_by_a_try_that_failed_is_flushed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    store = FolderBlobStore(tmp_path)
    keys = ["g/aa/one", "g/bb/two"]
    store.put_all([(key, b"x") for key in keys])
    flush, unlink, flushed = os.fsync, Path.unlink, list[Path]()

    def no_flush(_: int) -> None:
        raise OSError(5, "Input/output error")

    def locked(path: Path, missing_ok: bool = False) -> None:
        if path.name == "two":
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    def watched(handle: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        flush(handle)

    with monkeypatch.context() as patched:
        if fails == "the flush":
            patched.setattr(os, "fsync", no_flush)
        else:
            patched.setattr(Path, "unlink", locked)
        with pytest.raises(OSError, match=r"Input/output|not permitted"):
            store.delete_all(keys)
    assert not (tmp_path / "g/aa/one").exists()
    monkeypatch.setattr(os, "fsync", watched)
    store.delete("g/aa/one")
    assert flushed == [tmp_path / "g/aa"]
    # Of what never was there is nothing to flush.
    store.delete("h/aa/one")
    assert flushed == [tmp_path / "g/aa"]


def test_of_many_that_fail_nothing_half_written_stays(tmp_path: Path, monkeypatch) -> None:
    store = FolderBlobStore(tmp_path)
    flush, calls = os.fsync, []

    def fails_at_the_second(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        flush(handle)

    monkeypatch.setattr(os, "fsync", fails_at_the_second)
    with pytest.raises(OSError, match="No space"):
        store.put_all([("g/ab/1", b"one"), ("g/ab/2", b"two"), ("g/ab/3", b"three")])
    assert list(store.keys()) == []
    assert list((tmp_path / ".writing").iterdir()) == []


def test_kinds() -> None:
    assert isinstance(open_blob_store("memory://bucket"), RemoteBlobStore)
    with pytest.raises(InvalidArgument, match="blob_url"):
        open_blob_store("nonsense://bucket")


def test_files_are_private_and_never_half_written(tmp_path: Path, monkeypatch) -> None:
    store = FolderBlobStore(tmp_path / "blobs")
    store.put("g/ab/1", b"one")
    path = tmp_path / "blobs/g/ab/1"
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "blobs/g").stat().st_mode & 0o077 == 0

    def fails(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space"):
        store.put("g/ab/1", b"two")
    assert path.read_bytes() == b"one"
    assert list((tmp_path / "blobs/.writing").iterdir()) == []


@pytest.mark.parametrize("key", ["", "../x", "/etc/passwd", "a//b", "a/./b", ".writing/x"])
def test_keys_stay_inside_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidArgument, match="key"):
        FolderBlobStore(tmp_path).put(key, b"x")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FailedPrecondition, match="blob_url"):
        FolderBlobStore(tmp_path / "file" / "blobs")


def test_many_threads_make_the_same_folder(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            store.put(f"g/{number % 3}/{number}", b"%d" % number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(list(store.keys())) == 30


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    """A second store is opened on the folder in the middle of a write, as a replica does."""
    store, flush = FolderBlobStore(tmp_path), os.fsync

    def opens_another(handle: int) -> None:
        flush(handle)
        monkeypatch.setattr(os, "fsync", flush)
        FolderBlobStore(tmp_path)

    monkeypatch.setattr(os, "fsync", opens_another)
    old = tmp_path / ".writing" / "old"
    old.write_bytes(b"left by a crash")
    store.put("g/ab/1", b"one")
    assert store.get("g/ab/1") == b"one"
    assert not old.exists()


def test_a_process_that_begins_between_making_a_file_and_its_lock_costs_no_blob(
    tmp_path: Path, monkeypatch
) -> None:
    store, lock, begun = FolderBlobStore(tmp_path), fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not begun:
            begun.append(handle)
            FolderBlobStore(tmp_path)
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    store.put("g/ab/1", b"one")
    assert begun
    assert store.get("g/ab/1") == b"one"
    assert list((tmp_path / ".writing").iterdir()) == []
