"""The state folder: one night at a time, nothing half there, nothing left of a killed night."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adapt.nightly.state import Memory, NightState
from resight.errors import FailedPrecondition, InvalidArgument

HOLDER = """
import sys
from pathlib import Path
from adapt.nightly.state import NightState
state = NightState(Path(sys.argv[1]), memory_only=sys.argv[2] == "True")
with state.opened():
    (state.work / "crops").mkdir()
    (state.work / "crops" / "person.jpg").write_bytes(b"person")
    (state.path / ".new-half").mkdir()
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("memory_only", [False, True])
def test_a_killed_night_leaves_nothing_to_the_next(tmp_path: Path, memory_only: bool) -> None:
    state = NightState(tmp_path / "state", memory_only=memory_only)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state.path), str(memory_only)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(FailedPrecondition, match="a night runs on it already"), state.opened():
        pass
    process.kill()
    process.communicate()
    assert (state.work / "crops" / "person.jpg").exists()
    assert state.work.is_relative_to("/dev/shm") == memory_only
    with state.opened():
        assert list(state.work.iterdir()) == []
        assert state.work.stat().st_mode & 0o077 == 0, "images of people"
        (state.work / "x").write_text("x")
    assert not state.work.exists()
    assert [path.name for path in state.path.iterdir()] == [".lock"]


def test_work_is_gone_after_an_error_too(tmp_path: Path) -> None:
    state = NightState(tmp_path / "state")
    with pytest.raises(KeyboardInterrupt), state.opened():
        raise KeyboardInterrupt
    assert not state.work.exists()


def test_a_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InvalidArgument, match="is not a folder"),
        NightState(tmp_path / "file").opened(),
    ):
        pass


def test_what_is_remembered_is_read_back(tmp_path: Path) -> None:
    state = NightState(tmp_path)
    assert state.memory() == Memory()
    told = Memory(last_success=12.5, tail_seconds=3.0, last={"result": "skipped"})
    state.remember(told)
    assert state.memory() == told
    state.remember(replace(told, last_success=None))
    assert state.memory().last_success is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"other": 1}', '{"last": '])
def test_a_damaged_memory_is_forgotten_not_fatal(tmp_path: Path, text: str) -> None:
    (tmp_path / "night.json").write_text(text)
    assert NightState(tmp_path).memory() == Memory()


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = NightState(tmp_path)
    first, second = tmp_path / "first.tar", tmp_path / "second.tar"
    first.write_bytes(b"1" * 100_000)
    second.write_bytes(b"2" * 100_000)
    state.keep_candidate(first)

    def fails(_handle: int) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="disk full"):
            state.keep_candidate(second)
    assert state.candidate.read_bytes() == first.read_bytes()
    state.keep_candidate(second)
    assert state.candidate.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "candidate.tar",
        "first.tar",
        "second.tar",
    ]


def test_memory_that_is_no_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapt.nightly.state._SHARED_MEMORY", tmp_path)
    with (
        pytest.raises(FailedPrecondition, match="no writable memory file system"),
        NightState(tmp_path / "state", memory_only=True).opened(),
    ):
        pass
