"""A labelled source set: who is read from it, and what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet, read_crop_set
from adapt.training.source_set import SourceSet, read_source_set
from resight.errors import InvalidArgument

MakeCrops = Callable[..., Path]
CONFIG = RunConfig(height=32, width=16, device="cpu")


@pytest.fixture
def target(make_crops: MakeCrops, tmp_path: Path) -> CropSet:
    crops = make_crops(4, 4, name="target", seed=1)
    return read_crop_set(
        crops, CONFIG, cache=tmp_path / "cache", skipped_csv=tmp_path / "skipped.csv", threads=1
    )


def read(source: Path, target: CropSet, **settings: object) -> SourceSet:
    config = CONFIG.model_copy(update=settings)
    return read_source_set(source, config, target, cache=source.parent / "cache", threads=1)


def test_identities_come_from_the_names(make_crops: MakeCrops, target: CropSet) -> None:
    source = make_crops(3, 4, name="source", seed=2)
    for name in ("-1_c1s1_000000_00.png", "0000_c2s1_000000_00.png", "unnamed.png"):
        shutil.copy(source / "0003_c1s1_000000_00.png", source / name)
    (source / "0001_c1s1_000099_00.png").write_bytes(b"")
    found = read(source, target)
    people = [crop.path.name[:4] for crop in found.cache.crops]
    expected = [{"0001": 0, "0002": 1, "0003": 2}.get(person, -1) for person in people]
    assert found.identities.tolist() == expected
    assert found.cameras is None  # one crop has no camera
    assert found.counts() == {
        "usable": 12,
        "identities": 3,
        "skipped": 1,
        "without_identity": 3,
        "cameras_used": False,
    }


def test_identities_come_from_a_manifest(make_crops: MakeCrops, target: CropSet) -> None:
    crops = make_crops(3, 4, name="source", seed=2)
    paths = sorted(path.name for path in crops.iterdir())
    names = {"0001": "zoe", "0002": "0", "0003": ""}
    lines = [f"{crops.name}/{path},{names[path[:4]]},cam{path[6]}" for path in paths]
    manifest = crops.parent / "source.csv"
    manifest.write_text("path,identity,camera\n" + "\n".join(lines) + "\n")
    found = read(manifest, target)
    # "0" is a person where somebody wrote it on purpose.
    expected = [{"0001": 1, "0002": 0, "0003": -1}[path[:4]] for path in paths]
    assert found.identities.tolist() == expected
    assert found.cameras is not None
    assert len(np.unique(found.cameras)) == 2
    assert read(manifest, target, camera_aware=False).cameras is None


def test_a_source_without_identities_is_refused(make_crops: MakeCrops, target: CropSet) -> None:
    source = make_crops(2, 2, name="source", seed=2)
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(source / f"crop{number}.png")
    with pytest.raises(InvalidArgument, match="none of its 4 crops has an identity") as caught:
        read(source, target)
    assert (caught.value.field, caught.value.reason) == ("source", "NO_IDENTITIES")


def test_a_source_of_one_person_is_refused(make_crops: MakeCrops, target: CropSet) -> None:
    with pytest.raises(InvalidArgument, match="of one identity"):
        read(make_crops(1, 4, name="source", seed=2), target)


def test_an_empty_source_is_refused(target: CropSet, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidArgument, match="--source: no usable crop"):
        read(tmp_path / "empty", target)


def test_a_crop_of_both_sets_is_refused_under_any_name(
    make_crops: MakeCrops, target: CropSet
) -> None:
    source = make_crops(3, 4, name="source", seed=2)
    read(source, target)
    shutil.copy(target.cache.crops[5].path, source / "0099_c1s1_000000_00.png")
    with pytest.raises(InvalidArgument, match=r"1 of its crops are in --crops too") as caught:
        read(source, target)
    assert caught.value.reason == "OVERLAP"
    assert "0099_c1s1_000000_00.png" in caught.value.message
    assert target.cache.crops[5].path.name in caught.value.message
