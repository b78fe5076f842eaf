"""The ledger of erasures: nothing acknowledged is lost, nothing damaged is passed over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text

from resight.errors import FailedPrecondition, Unavailable
from service.erasure_ledger import Erasure, ErasureLedger, erased_blobs, erasures

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def entry(number: int, gallery: str = "default") -> Erasure:
    time = NOON + timedelta(microseconds=number)
    return Erasure(gallery, UUID(int=number + 1), UUID(int=(number + 1) << 64), time)


def test_what_was_appended_is_read_from_every_file(tmp_path) -> None:
    first, second = ErasureLedger(tmp_path / "e", "a"), ErasureLedger(tmp_path / "e", "b")
    first.append([entry(0), entry(1, "site-2.x")])
    second.append([entry(2)])
    first.append([entry(3)])
    assert list(erasures(tmp_path / "e")) == [entry(0), entry(1, "site-2.x"), entry(3), entry(2)]
    blocks = list(erased_blobs(tmp_path / "e", block=3))
    assert [len(block) for block in blocks] == [3, 1]
    together = [blob_id for block in blocks for blob_id in block]
    assert together == [found.blob_id for found in erasures(tmp_path / "e")]
    assert (tmp_path / "e" / "a.ledger").stat().st_mode & 0o777 == 0o600
    assert list(erasures(tmp_path / "none")) == []


def test_every_cut_of_the_last_line_is_a_crash(tmp_path) -> None:
    ledger = ErasureLedger(tmp_path, "a")
    ledger.append([entry(0), entry(1)])
    ledger.close()
    whole = ledger.path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        ledger.path.write_bytes(whole[:cut])
        expected = [entry(0), entry(1)] if cut == len(whole) - 1 else [entry(0)]
        assert list(erasures(tmp_path)) == expected, cut
        again = ErasureLedger(tmp_path, "a")
        again.append([entry(2)])
        again.close()
        assert list(erasures(tmp_path)) == [*expected, entry(2)], cut


def test_zeros_that_never_became_bytes_are_a_crash(tmp_path) -> None:
    ledger = ErasureLedger(tmp_path, "a")
    ledger.append([entry(0)])
    ledger.close()
    with ledger.path.open("ab") as file:
        file.write(bytes(200))
    assert list(erasures(tmp_path)) == [entry(0)]


def test_every_flipped_byte_of_a_whole_line_is_refused(tmp_path) -> None:
    ledger = ErasureLedger(tmp_path, "a")
    ledger.append([entry(0), entry(1), entry(2)])
    ledger.close()
    whole = ledger.path.read_bytes()
    for place in range(len(whole)):
        for bit in (1, 0x80):
            ledger.path.write_bytes(
                whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
            )
            with pytest.raises(FailedPrecondition, match=r"line [123] .*a\.ledger.*sound copy"):
                list(erasures(tmp_path))
            with pytest.raises(FailedPrecondition):
                ErasureLedger(tmp_path, "a")


def test_one_process_a_file(tmp_path) -> None:
    ledger = ErasureLedger(tmp_path, "a")
    with pytest.raises(FailedPrecondition, match="in use"):
        ErasureLedger(tmp_path, "a")
    ledger.close()
    ErasureLedger(tmp_path, "a").close()


def test_a_failed_append_leaves_no_half_line(tmp_path, monkeypatch) -> None:
    ledger = ErasureLedger(tmp_path, "a")
    ledger.append([entry(0)])
    real = os.write

    def full(handle: int, data: bytes) -> int:
        real(handle, data[:20])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(Unavailable, match="nothing was deleted"):
            ledger.append([entry(1)])
        patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(5, "error")))
        with pytest.raises(Unavailable):
            ledger.append([entry(2)])
    ledger.append([entry(3)])
    assert list(erasures(tmp_path)) == [entry(0), entry(3)]


def test_it_is_written_before_the_commit_and_not_without_one(tmp_path, monkeypatch) -> None:
    ledger = ErasureLedger(tmp_path, "a")
    engine = create_engine(f"sqlite:///{tmp_path}/db")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (x INTEGER)"))
    with engine.connect() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        ledger.note(connection, entry(0))
        ledger.note(connection, entry(1))
        connection.rollback()
    assert list(erasures(tmp_path)) == []
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        ledger.note(connection, entry(2))
        ledger.note(connection, entry(3))
        assert list(erasures(tmp_path)) == []
    assert list(erasures(tmp_path)) == [entry(2), entry(3)]

    def fails(_: object) -> None:
        raise Unavailable("no")

    monkeypatch.setattr(ledger, "append", fails)

    def erase() -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (2)"))
            ledger.note(connection, entry(4))

    with pytest.raises(Unavailable):
        erase()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT x FROM t")).scalars().all() == [1]


def test_a_killed_process_leaves_what_it_acknowledged(tmp_path) -> None:
    program = (
        "import sys\n"
        "from datetime import UTC, datetime\n"
        "from pathlib import Path\n"
        "from uuid import UUID\n"
        "from service.erasure_ledger import Erasure, ErasureLedger\n"
        "ledger = ErasureLedger(Path(sys.argv[1]), 'a')\n"
        "for n in range(10**9):\n"
        "    time = datetime.fromtimestamp(n, UTC)\n"
        "    ledger.append([Erasure('g', UUID(int=n + 1), UUID(int=n + 2), time)] * 3)\n"
        "    print(n, flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        ) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            acknowledged = int((first + process.stdout.read()).split()[-1])
        found = [found.crop_id.int - 1 for found in erasures(tmp_path)]
        assert found.count(acknowledged) % 3 == 0
        assert found.count(acknowledged) >= 3
