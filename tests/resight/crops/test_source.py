"""Folders and manifests: what is found, what is skipped, and why."""

from __future__ import annotations

import csv
import json
import os
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from resight.crops import ImageLimits, SourceReport, open_source, read_crop
from resight.errors import InvalidArgument, NotFound, ResightError


def jpeg(height: int = 32, width: int = 16) -> bytes:
    stream = BytesIO()
    pixels = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()


def reasons(report: SourceReport) -> dict[str, str]:
    return {crop.path.name: str(crop.reason) for crop in report.skipped}


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def test_a_messy_folder_is_sorted_counted_and_listed(tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    (crops / "sub.jpg").mkdir(parents=True)
    outside = tmp_path / "secret.jpg"
    outside.write_bytes(jpeg())
    for name in ("0002_c3s1_000451_03.jpg", "-1_c1s1_000401_03.jpg", "0000_c12s2_1_1.jpg"):
        (crops / name).write_bytes(jpeg())
    (crops / "holiday_c3po.jpg").write_bytes(jpeg())
    (crops / "sub.jpg" / "0007_c2_f0046182.jpg").write_bytes(jpeg())
    (crops / "inside-link.jpg").symlink_to(crops / "holiday_c3po.jpg")
    (crops / "outside-link.jpg").symlink_to(outside)
    (crops / "broken-link.jpg").symlink_to(crops / "nowhere.jpg")
    (crops / "loop.jpg").symlink_to(crops / "loop.jpg")
    (crops / "linked").symlink_to(tmp_path)
    (crops / "zero.jpg").touch()
    (crops / "text.jpg").write_text("no image")
    (crops / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 20)
    (crops / "tiny.jpg").write_bytes(jpeg(4, 4))
    (crops / "huge.jpg").write_bytes(jpeg(200, 200))
    (crops / "long.jpg").write_bytes(jpeg() + b"\0" * 70_000)
    os.mkfifo(crops / "pipe.jpg")
    (crops / ".hidden.jpg").touch()
    (crops / "gallery.csv").write_text("path\n")
    report = open_source(crops).scan(limits=ImageLimits(max_pixels=30_000, max_bytes=60_000))
    assert [crop.path.relative_to(crops).as_posix() for crop in report.crops] == [
        "-1_c1s1_000401_03.jpg",
        "0000_c12s2_1_1.jpg",
        "0002_c3s1_000451_03.jpg",
        "holiday_c3po.jpg",
        "inside-link.jpg",
        "sub.jpg/0007_c2_f0046182.jpg",
    ]
    assert [crop.camera for crop in report.crops] == ["c1", "c12", "c3", None, None, "c2"]
    assert reasons(report) == {
        "Thumbs.db": "not an image",
        "broken-link.jpg": "missing",
        "huge.jpg": "too large",
        "linked": "linked folder",
        "long.jpg": "too large",
        "loop.jpg": "unreadable",
        "outside-link.jpg": "outside the source",
        "pipe.jpg": "not a regular file",
        "text.jpg": "not an image",
        "tiny.jpg": "too small",
        "zero.jpg": "zero-byte",
    }
    assert report.skipped_by_reason["too large"] == 2
    assert report.without_camera == 2
    assert report.without_time == 6
    assert report.cameras == {"c1": 1, "c12": 1, "c2": 1, "c3": 1}
    assert report.summary()["skipped"] == 11
    report.write_csv(tmp_path / "skipped.csv")
    with (tmp_path / "skipped.csv").open(newline="") as stream:
        listed = list(csv.DictReader(stream))
    assert {row["path"]: row["reason"] for row in listed} == {
        str(crops / name): reason for name, reason in reasons(report).items()
    }


def test_a_cut_image_is_found_by_decoding_only(tmp_path: Path) -> None:
    (tmp_path / "whole.jpg").write_bytes(jpeg())
    (tmp_path / "cut.jpg").write_bytes(jpeg()[:-60])
    assert len(open_source(tmp_path).scan("header").crops) == 2
    report = open_source(tmp_path).scan("decode")
    assert [crop.path.name for crop in report.crops] == ["whole.jpg"]
    assert reasons(report) == {"cut.jpg": "truncated"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_rights_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(jpeg())
    (tmp_path / "theirs.jpg").write_bytes(jpeg())
    (tmp_path / "theirs.jpg").chmod(0)
    assert reasons(open_source(tmp_path).scan()) == {"theirs.jpg": "unreadable"}


def test_a_file_that_vanishes_after_listing_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").write_bytes(jpeg())
    original = Path.open

    def vanish(path: Path, *args: object, **options: object) -> object:
        if path.name == "a.jpg":
            path.unlink()
        return original(path, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", vanish)
    report = open_source(tmp_path).scan()
    assert reasons(report) == {"a.jpg": "unreadable"}


def test_an_empty_source_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").touch()
    report = open_source(tmp_path).scan()
    assert report.crops == ()
    with pytest.raises(InvalidArgument, match=r"no usable crop.*1 zero-byte"):
        report.require_crops()


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing at"):
        open_source(tmp_path / "absent")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InvalidArgument, match="neither a folder nor"):
        open_source(tmp_path / "notes.txt")


def test_every_file_is_reported_as_it_is_checked(tmp_path: Path) -> None:
    for index in range(5):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg())
    seen: list[int] = []
    open_source(tmp_path).scan(advance=seen.append)
    assert sum(seen) == 5


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 100)
    assert read_crop(path, limits=ImageLimits(max_bytes=100)) == b"x" * 100
    for limit in (99, 10):
        with pytest.raises(ResightError, match="limit"):
            read_crop(path, limits=ImageLimits(max_bytes=limit))


def test_a_csv_manifest_gives_every_column_and_no_identity(tmp_path: Path) -> None:
    (tmp_path / "gallery").mkdir()
    for name in "abc":
        (tmp_path / "gallery" / f"{name}.jpg").write_bytes(jpeg())
    manifest = write_csv(
        tmp_path / "gallery.csv",
        ["path", "identity", "camera", "capture_time", "track", "zone", "attributes"],
        [
            ["gallery/b.jpg", "7", "north", "2026-03-01T12:00:00.25+02:00", "t1", "hall",
             json.dumps({"shift": "day"})],
            ["gallery/a.jpg", "7", "", "", "", "", ""],
            ["gallery/c.jpg", "7", "south", "2026-03-01t10:00:00z", "", "", ""],
        ],
    )  # fmt: skip
    a, b, c = open_source(manifest).scan().crops
    assert (a.camera, a.capture_time, a.track, a.zone, a.attributes) == (None, None, None, "", {})
    assert (b.camera, b.track, b.zone, b.attributes) == ("north", "t1", "hall", {"shift": "day"})
    assert b.capture_time == datetime(2026, 3, 1, 10, 0, 0, 250_000, tzinfo=UTC)
    assert c.capture_time == datetime(2026, 3, 1, 10, tzinfo=UTC)
    assert not any(hasattr(crop, "identity") for crop in (a, b, c))


def test_faults_of_rows_skip_the_row_and_name_the_column(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg())
    (tmp_path / "other.jpg").write_bytes(jpeg())
    rows = [
        ["good.jpg", "2026-01-01T00:00:00Z", "{}"],
        ["good.jpg", "2026-01-01T00:00:00Z", ""],
        ["/etc/passwd", "", ""],
        ["../good.jpg", "", ""],
        ["C:\\crops\\a.jpg", "", ""],
        ["", "", ""],
        ["absent.jpg", "", ""],
        ["other.jpg", "yesterday", ""],
        ["other.jpg", "2026-01-01T00:00:00", ""],
        ["other.jpg", "2026-02-30T00:00:00Z", ""],
        ["other.jpg", "", "[1]"],
        ["other.jpg", "", '{"a": 1}'],
        ["other.jpg", "", "{"],
        ["other.jpg", "", "", "extra"],
    ]
    manifest = write_csv(tmp_path / "m.csv", ["path", "capture_time", "attributes"], rows)
    report = open_source(manifest).scan()
    assert [crop.path.name for crop in report.crops] == ["good.jpg"]
    found = {int(c.detail.split(",")[0].split(":")[0][4:]): c for c in report.skipped}
    assert {row: str(crop.reason) for row, crop in found.items()} == {
        2: "duplicate path",
        3: "outside the source",
        4: "outside the source",
        5: "outside the source",
        6: "bad manifest row",
        7: "missing",
        8: "bad manifest row",
        9: "bad manifest row",
        10: "bad manifest row",
        11: "bad manifest row",
        12: "bad manifest row",
        13: "bad manifest row",
        14: "bad manifest row",
    }
    for row in (8, 9, 10):
        assert "column capture_time" in found[row].detail
    for row in (11, 12, 13):
        assert "column attributes" in found[row].detail
    assert "time zone" in found[9].detail or "RFC 3339" in found[9].detail


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("camera,time\na,b\n", "no column path"),
        ("", "no column path"),
        ("path,path\na.jpg,b.jpg\n", "twice"),
        ('path,camera\n"a.jpg,c1\n', "cannot be read"),
    ],
)
def test_faults_of_the_manifest_itself_are_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        open_source(tmp_path / "m.csv").scan()


def test_a_manifest_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes("path\nMünchen.jpg\n".encode("latin-1"))
    with pytest.raises(InvalidArgument, match="cannot be read as csv"):
        open_source(tmp_path / "m.csv").scan()


def test_a_manifest_written_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "m.csv").write_bytes("\ufeffpath,camera\r\na.jpg,c1\r\n".encode())
    assert [crop.camera for crop in open_source(tmp_path / "m.csv").scan().crops] == ["c1"]


def test_a_link_in_a_manifest_may_not_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "m.csv").write_text("path\na.jpg\n")
    assert reasons(open_source(folder / "m.csv").scan()) == {"a.jpg": "outside the source"}


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_parquet_manifest_equals_the_csv(tmp_path: Path, unit: str) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    (tmp_path / "b.jpg").write_bytes(jpeg())
    moment = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=1)))
    table = pa.table({
        "path": ["b.jpg", "a.jpg", "a.jpg", None],
        "identity": [1, 2, 3, 4],
        "camera": [3, None, 4, 5],
        "capture_time": pa.array([moment, None, moment, moment], pa.timestamp(unit, "Europe/Rome")),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "m.parquet")
    report = open_source(tmp_path / "m.parquet").scan()
    a, b = report.crops
    assert (a.camera, a.capture_time) == (None, None)
    assert (b.camera, b.capture_time) == ("3", datetime(2026, 3, 1, 11, tzinfo=UTC))
    assert sorted(str(crop.reason) for crop in report.skipped) == [
        "bad manifest row",
        "duplicate path",
    ]


def test_a_parquet_time_without_zone_is_a_fault_of_the_row(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    times = pa.array([datetime(2026, 3, 1, 12)], pa.timestamp("us"))  # noqa: DTZ001
    pq.write_table(pa.table({"path": ["a.jpg"], "capture_time": times}), tmp_path / "m.parquet")
    report = open_source(tmp_path / "m.parquet").scan()
    assert "no time zone" in report.skipped[0].detail


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([2**62], pa.timestamp("us", "UTC")),
        pa.array([1], pa.time64("ns")),
    ],
)
def test_a_parquet_cell_that_python_has_no_value_for_is_an_error(
    tmp_path: Path, cells: pa.Array
) -> None:
    path = tmp_path / "crops.parquet"
    pq.write_table(pa.table({"path": ["a.jpg"], "capture_time": cells}), path)
    with pytest.raises(InvalidArgument, match="cannot be read as parquet"):
        open_source(path).scan()


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 but nothing else PAR1")
    with pytest.raises(InvalidArgument, match="cannot be read as parquet"):
        open_source(tmp_path / "m.parquet").scan()
