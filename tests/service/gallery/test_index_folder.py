"""Index files: read back bit by bit, cut off anywhere, damaged anywhere."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from service.domain.crop import AttributeTerm
from service.domain.ports import RowFilter
from service.gallery.index import SegmentedIndex
from service.gallery.index_folder import IndexFolder, LogMark, UnusableError
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit

DIMENSION = 8
SEGMENT_ROWS = 16


class KilledError(BaseException):
    """Stands for the end of the process: nothing catches it."""


def made_rows(first: int, count: int) -> list[Row]:
    rng = np.random.default_rng(first)
    return [
        Row(
            UUID(int=number),
            unit(rng.standard_normal(DIMENSION)),
            camera=number % 3,
            time=number,
            zone=["", "gate", "hallå"][number % 3],
            track=f"track {number // 4}",
            attributes={"bag": str(number % 2)} if number % 5 else {},
        )
        for number in range(first, first + count)
    ]


def made_index(rows: list[Row]) -> SegmentedIndex:
    index = SegmentedIndex(DIMENSION, segment_rows=SEGMENT_ROWS)
    index.add(as_rows(rows))
    return index


def folder(path: Path, step: Callable[[str], None] = lambda _: None) -> IndexFolder:
    return IndexFolder(path, model_version="m-1", dimension=DIMENSION, step=step)


def read(path: Path) -> tuple[SegmentedIndex, int, dict[str, str]]:
    restored = folder(path).read(segment_rows=SEGMENT_ROWS)
    index = SegmentedIndex(DIMENSION, segment_rows=SEGMENT_ROWS)
    for segment in restored.segments:
        index.adopt(segment)
    return index, restored.mark.position, dict(restored.damaged)


def assert_holds(index: SegmentedIndex, rows: list[Row]) -> None:
    """Every row, under every kind of filter, bit by bit."""
    query = made_rows(1, 1)[0].vector
    for chosen in (
        RowFilter(),
        RowFilter(start=20, include_cameras=frozenset([1])),
        RowFilter(include_zones=frozenset(["hallå"])),
        RowFilter(exclude_tracks=frozenset(["track 3", "track 4"])),
        RowFilter(include_attributes=[AttributeTerm("bag", ["1"])]),
        RowFilter(exclude_attributes=[AttributeTerm("bag")]),
    ):
        hits = index.search(query, 1000, chosen, None)
        expected, _ = brute_force(rows, query, 1000, chosen, None)
        assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


def contents(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.iterdir()))


def test_what_was_written_is_read(tmp_path: Path) -> None:
    rows = made_rows(1, 50)
    folder(tmp_path).write(made_index(rows).snapshot, LogMark(50, "x"))
    index, position, damaged = read(tmp_path)
    assert (position, damaged, index.tombstones) == (50, {}, 0)
    assert_holds(index, rows)
    more = made_rows(51, 30)
    index.add(as_rows(more))
    assert_holds(index, rows + more)
    # The last segment had room left: 80 rows fill five segments.
    assert len(index.snapshot.views) == 5


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    rows = made_rows(1, 50)
    index = made_index(rows)
    steps: list[str] = []
    kept = folder(tmp_path, steps.append)
    kept.write(index.snapshot, LogMark(50, "x"))
    assert steps.count("segment named") == 4
    steps.clear()
    kept.write(index.snapshot, LogMark(50, "x"))
    assert steps.count("segment named") == 0
    index.add(as_rows(made_rows(51, 1)))
    index.remove([rows[0].crop_id])
    steps.clear()
    kept.write(index.snapshot, LogMark(52, "y"))
    assert steps.count("segment named") == 2
    # After a start, too.
    steps.clear()
    again = folder(tmp_path, steps.append)
    restored = again.read(segment_rows=SEGMENT_ROWS)
    other = SegmentedIndex(DIMENSION, segment_rows=SEGMENT_ROWS)
    for segment in restored.segments:
        other.adopt(segment)
    again.write(other.snapshot, LogMark(52, "y"))
    assert steps.count("segment named") == 0
    assert_holds(read(tmp_path)[0], rows[1:] + made_rows(51, 1))


def test_nothing_of_a_removed_row_is_left_in_the_files(tmp_path: Path) -> None:
    rows = made_rows(1, 50)
    index = made_index(rows)
    kept = folder(tmp_path)
    kept.write(index.snapshot, LogMark(50, "x"))
    gone = rows[5]
    traces = [gone.vector.tobytes(), b"track 1"]
    assert all(trace in contents(tmp_path) for trace in traces)
    # All of one track, and far below the share at which a segment is written anew in memory.
    index.remove([row.crop_id for row in rows if row.track == gone.track][:2])
    index.remove([row.crop_id for row in rows if row.track == gone.track])
    kept.write(index.snapshot, LogMark(54, "y"))
    assert not any(trace in contents(tmp_path) for trace in [gone.vector.tobytes(), b'"track 1"'])
    index.remove([row.crop_id for row in rows])
    kept.write(index.snapshot, LogMark(104, "z"))
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]
    assert len(read(tmp_path)[0]) == 0


def test_a_write_cut_off_anywhere_reads_as_before_or_after(tmp_path: Path) -> None:
    """The process ends between any two steps; the next one reads, and writes again."""
    before, more = made_rows(1, 40), made_rows(41, 14)
    after = before[4:] + more
    outcomes = set()
    for allowed in range(1000):
        path = tmp_path / str(allowed)
        index = made_index(before)
        folder(path).write(index.snapshot, LogMark(40, "x"))
        left = iter(range(allowed))

        def step(_: str, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KilledError

        kept = folder(path, step)
        index.remove([row.crop_id for row in before[:4]])
        index.add(as_rows(more))
        try:
            kept.write(index.snapshot, LogMark(58, "y"))
        except KilledError:
            finished = False
        else:
            finished = True
        found, position, damaged = read(path)
        assert not damaged
        assert_holds(found, before if position == 40 else after)
        outcomes.add(position)
        # The next process writes whatever it has, and leaves nothing over.
        folder(path).write(made_index(after).snapshot, LogMark(58, "y"))
        assert_holds(read(path)[0], after)
        named = {
            entry["file"] for entry in json.loads((path / "manifest.json").read_text())["segments"]
        }
        assert {file.name for file in path.iterdir()} == named | {"manifest.json"}
        if finished:
            break
    assert allowed > 20
    assert outcomes == {40, 58}


def test_any_damage_is_seen_and_spares_the_other_segments(tmp_path: Path) -> None:
    """Bytes flipped, files cut short or grown or gone: sound rows only, and the rest is told."""
    rows = made_rows(1, 50)
    rng = random.Random(3)
    folder(tmp_path).write(made_index(rows).snapshot, LogMark(50, "x"))
    intact = {file: file.read_bytes() for file in tmp_path.iterdir()}
    segments = [file for file in intact if file.suffix == ".segment"]
    ignored = 0
    for _ in range(150):
        victim = rng.choice(segments)
        data = bytearray(intact[victim])
        kind = rng.choice(["flip", "cut", "gone", "empty", "swap"])
        if kind == "flip":
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del data[rng.randrange(len(data)) :]
        elif kind == "swap":
            data = bytearray(intact[rng.choice(segments)])
        if kind == "gone":
            victim.unlink()
        else:
            victim.write_bytes(b"" if kind == "empty" else data)
        found, _, damaged = read(tmp_path)
        if damaged:
            assert set(damaged) == {victim.name}
            lost = len(rows) - len(found)
            assert 0 < lost <= SEGMENT_ROWS
            held = {(high << 64) | low for high, low in found.snapshot.ids().tolist()}
            assert_holds(found, [row for row in rows if row.crop_id.int in held])
        else:
            # Padding, or nothing changed at all: every row is as it was.
            ignored += 1
            assert_holds(found, rows)
        victim.write_bytes(intact[victim])
    assert ignored < 100


@pytest.mark.parametrize("flips", [1, 200])
def test_a_damaged_manifest_is_refused(tmp_path: Path, flips: int) -> None:
    folder(tmp_path).write(made_index(made_rows(1, 50)).snapshot, LogMark(50, "x"))
    path = tmp_path / "manifest.json"
    intact, rng = path.read_bytes(), random.Random(5)
    for _ in range(100):
        data = bytearray(intact)
        for _ in range(flips):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(7)
        try:
            same = json.loads(data) == json.loads(intact)
        except ValueError:
            same = False
        path.write_bytes(data)
        if same:
            continue
        with pytest.raises(UnusableError) as caught:
            read(tmp_path)
        assert caught.value.reason in {"damaged", "newer_format"}
    for data in (b"", b"[]", b"{}", b"null", intact[:-5], b"[" * 30_000):
        path.write_bytes(data)
        with pytest.raises(UnusableError, match="manifest") as caught:
            read(tmp_path)
        assert caught.value.reason == "damaged"


def test_files_of_a_newer_version_and_of_another_model_are_left_alone(tmp_path: Path) -> None:
    folder(tmp_path).write(made_index(made_rows(1, 5)).snapshot, LogMark(5, "x"))
    other = IndexFolder(tmp_path, model_version="m-2", dimension=DIMENSION)
    with pytest.raises(UnusableError, match="m-1") as caught:
        other.read(segment_rows=SEGMENT_ROWS)
    assert caught.value.reason == "other_index"
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(UnusableError, match="99") as caught:
        read(tmp_path)
    assert caught.value.reason == "newer_format"
    with pytest.raises(UnusableError) as caught:
        read(tmp_path / "nowhere")
    assert caught.value.reason == "none"


def test_a_full_disk_leaves_the_old_state(tmp_path: Path) -> None:
    rows = made_rows(1, 40)
    index = made_index(rows)
    full = False

    def step(name: str) -> None:
        if full and name == "part written":
            raise OSError(28, "No space left on device")

    kept = folder(tmp_path, step)
    kept.write(index.snapshot, LogMark(40, "x"))
    index.add(as_rows(made_rows(41, 1)))
    full = True
    with pytest.raises(OSError, match="space"):
        kept.write(index.snapshot, LogMark(41, "y"))
    assert not list(tmp_path.glob("*.writing"))
    assert_holds(read(tmp_path)[0], rows)
    full = False
    kept.write(index.snapshot, LogMark(41, "y"))
    assert_holds(read(tmp_path)[0], rows + made_rows(41, 1))


def test_clearing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.clear()
    kept.write(made_index(made_rows(1, 40)).snapshot, LogMark(40, "x"))
    (tmp_path / "README").write_text("not ours")
    kept.clear()
    assert [file.name for file in tmp_path.iterdir()] == ["README"]
