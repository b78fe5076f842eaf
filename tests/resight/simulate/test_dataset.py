from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from resight.crops import open_source
from resight.crops.folder import camera_of
from resight.errors import AlreadyExists, InvalidArgument
from resight.simulate import dataset
from resight.simulate.camera import cameras
from resight.simulate.dataset import SPLITS, simulate
from resight.simulate.render import Studio
from resight.simulate.schedule import schedule
from resight.simulate.settings import SimulationSettings

Rows = dict[str, list[dict[str, str]]]
NAME = re.compile(r"(\d{4,})_c(\d+)s1_(\d{6,})_(\d{2,})\.jpg")


def read(site: Path) -> Rows:
    found = {}
    for split in SPLITS:
        with (site / f"{split}.csv").open(newline="") as file:
            found[split] = list(csv.DictReader(file))
    return found


def digests(site: Path) -> dict[str, str]:
    return {
        str(path.relative_to(site)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(site.rglob("*"))
        if path.is_file()
    }


def moment(row: dict[str, str]) -> datetime:
    return datetime.fromisoformat(row["capture_time"])


def test_manifests_name_exactly_the_files_there_are(
    site: Path, settings: SimulationSettings
) -> None:
    rows = read(site)
    for split in SPLITS:
        named = [row["path"] for row in rows[split]]
        there = {f"{split}/{path.name}" for path in (site / split).iterdir()}
        assert len(named) == len(set(named))
        assert set(named) == there
    assert sum(len(part) for part in rows.values()) == settings.crops


def test_a_row_agrees_with_its_file_name(site: Path) -> None:
    start = datetime(2025, 3, 3, 8, tzinfo=UTC)
    for part in read(site).values():
        for row in part:
            match = NAME.fullmatch(Path(row["path"]).name)
            assert match is not None, row
            assert int(match[1]) == int(row["identity"])
            assert f"c{match[2]}" == row["camera"] == camera_of(Path(row["path"]).name)
            assert (moment(row) - start).total_seconds() == pytest.approx(int(match[3]) / 25)


def test_crop_sources_read_every_crop_whole_with_camera_time_and_track(site: Path) -> None:
    for split in SPLITS:
        report = open_source(site / f"{split}.csv").scan(check="decode")
        assert not report.skipped
        assert len(report.crops) == len(read(site)[split])
        for crop in report.crops:
            assert crop.camera
            assert crop.track
            assert crop.zone
            assert crop.capture_time is not None
            assert crop.capture_time.tzinfo is not None


def test_training_people_are_never_searched_for(site: Path) -> None:
    rows = read(site)
    people = {split: {row["identity"] for row in rows[split]} for split in SPLITS}
    assert len(people["train"]) == 6
    assert len(people["query"]) == 18
    assert people["train"].isdisjoint(people["query"] | people["gallery"])
    assert people["query"] <= people["gallery"]
    assert people["gallery"] - people["query"] == {"0"}


def test_one_query_for_each_person_and_camera_with_something_to_find_elsewhere(site: Path) -> None:
    rows = read(site)
    keys = [(row["identity"], row["camera"]) for row in rows["query"]]
    assert len(keys) == len(set(keys))
    seen = {(row["identity"], row["camera"]) for row in rows["gallery"] if row["identity"] != "0"}
    assert set(keys) == seen
    for identity, camera in keys:
        assert any(who == identity and where != camera for who, where in seen)


def test_a_track_is_one_person_on_one_camera_moving_forward_in_time(site: Path) -> None:
    tracks = defaultdict(list)
    for part in read(site).values():
        for row in part:
            tracks[row["track"]].append(row)
    for rows in tracks.values():
        assert len({(row["identity"], row["camera"], row["zone"]) for row in rows}) == 1
        times = sorted(moment(row) for row in rows)
        assert len(set(times)) == len(times)
        steps = [(late - early).total_seconds() for early, late in pairwise(times)]
        assert all(0.1 <= step <= 1.0 for step in steps)
    assert any(len(rows) > 2 for rows in tracks.values())


def test_nobody_is_on_two_cameras_at_once(site: Path) -> None:
    spans = defaultdict(dict)
    for part in read(site).values():
        for row in part:
            if row["identity"] != "0":
                first, last = spans[row["identity"]].get(row["track"], (moment(row), moment(row)))
                spans[row["identity"]][row["track"]] = (
                    min(first, moment(row)),
                    max(last, moment(row)),
                )
    for visits in spans.values():
        ordered = sorted(visits.values())
        for (_, left), (arrived, _) in pairwise(ordered):
            assert (arrived - left).total_seconds() >= 10


def test_equal_settings_give_equal_bytes_whatever_the_workers(
    site: Path, settings: SimulationSettings, tmp_path: Path
) -> None:
    simulate(settings, tmp_path / "again", workers=3)
    assert digests(tmp_path / "again") == digests(site)


def test_a_crop_is_the_same_in_whatever_order_it_is_drawn(settings: SimulationSettings) -> None:
    plan = schedule(settings, cameras(settings.seed, settings.cameras))[:12]
    forward, backward = Studio(settings), Studio(settings)
    drawn = {shot.number: forward.picture(shot) for shot in plan}
    assert all(backward.picture(shot) == drawn[shot.number] for shot in reversed(plan))


def test_another_seed_gives_other_people_and_times(
    site: Path, settings: SimulationSettings
) -> None:
    other = SimulationSettings(**{**settings.__dict__, "seed": settings.seed + 1})
    plan = schedule(other, cameras(other.seed, other.cameras))
    times = {row["capture_time"][:19] for row in read(site)["train"]}
    assert len({shot.capture_time.isoformat()[:19] for shot in plan} & times) < len(times) / 4
    first = next(shot for shot in plan if shot.split == "train")
    name = sorted((site / "train").iterdir())[0]
    assert Studio(other).picture(first) != name.read_bytes()


def test_sizes_differ_by_camera(site: Path) -> None:
    heights = defaultdict(list)
    for row in read(site)["train"]:
        with Image.open(site / row["path"]) as image:
            width, height = image.size
        assert 0.35 * height - 1 <= width <= 0.5 * height + 1
        heights[row["camera"]].append(height)
    means = [sum(part) / len(part) for part in heights.values()]
    assert max(means) > 1.15 * min(means)


def test_the_note_says_how_it_was_made(site: Path, settings: SimulationSettings) -> None:
    note = json.loads((site / "simulation.json").read_text())
    assert note["settings"]["seed"] == settings.seed
    assert note["crops"] == {split: len(part) for split, part in read(site).items()}
    assert note["distractors"] == 21
    assert note["generator_version"] == dataset.GENERATOR_VERSION


def test_an_occupied_folder_is_left_alone(settings: SimulationSettings, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(AlreadyExists, match="--output"):
        simulate(settings, tmp_path, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_simulation_leaves_nothing(
    settings: SimulationSettings, tmp_path: Path
) -> None:
    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(settings, tmp_path / "site", workers=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [0, -1, 1000])
def test_impossible_workers_are_refused(
    settings: SimulationSettings, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(InvalidArgument, match="workers"):
        simulate(settings, tmp_path / "site", workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_every_file_is_a_whole_jpeg_without_metadata(site: Path) -> None:
    for path in (site / "query").iterdir():
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            assert image.format == "JPEG"
            assert image.mode == "RGB"
            assert not image.getexif()
            image.load()
