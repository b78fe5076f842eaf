"""``resight adapt cluster`` on files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from adapt.clustering import cell_search
from adapt.clustering.cluster import ClusterSettings, cluster
from adapt.clustering.command import register
from resight.errors import InvalidArgument, ResightError

app = typer.Typer()
register(app)


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, ResightError):
        raise result.exception
    return result


@pytest.fixture
def features(tmp_path: Path, data_set: Callable[[str], np.ndarray]) -> Path:
    np.save(tmp_path / "F.npy", 3 * data_set("loose"))
    return tmp_path / "F.npy"


def test_writes_labels_and_reports(features: Path, tmp_path: Path) -> None:
    output = tmp_path / "made" / "labels"
    shape = ["--k1", 15, "--k2", 4, "--eps", 0.5, "--min-samples", 3]
    answer = json.loads(run("--features", features, "--output", output, *shape, "--json").stdout)
    expected = cluster(np.load(features), ClusterSettings(k1=15, k2=4, eps=0.5, min_samples=3))
    labels = np.load(output)
    np.testing.assert_array_equal(labels, expected.labels)
    assert labels.dtype == np.int32
    assert 0 < answer["outliers"] == np.count_nonzero(labels == -1)
    assert answer["clusters"] == labels.max() + 1
    assert answer["largest_cluster"] == np.bincount(labels[labels >= 0]).max()
    assert set(answer["seconds"]) >= {"compile", "neighbours", "jaccard", "dbscan", "total"}


def test_cameras_are_counted_and_change_no_label(features: Path, tmp_path: Path) -> None:
    cameras = np.array(["a", "b"])[np.arange(250) % 2]
    np.save(tmp_path / "C.npy", cameras)
    plain, with_cameras = tmp_path / "plain.npy", tmp_path / "cameras.npy"
    run("--features", features, "--output", plain)
    answer = json.loads(
        run(
            "--features", features, "--output", with_cameras, "--cameras", tmp_path / "C.npy",
            "--json",
        ).stdout
    )  # fmt: skip
    labels = np.load(plain)
    np.testing.assert_array_equal(labels, np.load(with_cameras))
    for name in ("a", "b"):
        own = labels[cameras == name]
        assert answer["cameras"]["per_camera"][name] == {
            "rows": 125,
            "outliers": np.count_nonzero(own < 0),
            "clusters": len(set(own[own >= 0])),
        }
    one_camera = sum(len(set(cameras[labels == label])) == 1 for label in range(labels.max() + 1))
    assert answer["cameras"]["clusters_of_one_camera"] == one_camera
    assert "no part in the clustering" in answer["notes"][-1]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.empty((0, 4), np.float32), "no rows"),
        (np.ones(4, np.float32), "shape"),
        (np.ones((3, 4), np.int32), "int32"),
        (np.zeros((3, 4), np.float32), "all zero"),
        (np.full((3, 4), np.inf, np.float32), "not finite"),
        (np.array([[object()]]), "not a .npy array of numbers"),
    ],
)
def test_features_that_cannot_work_are_refused(
    array: np.ndarray, message: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "F.npy", array, allow_pickle=True)
    with pytest.raises(InvalidArgument, match=message):
        run("--features", tmp_path / "F.npy", "--output", tmp_path / "L.npy")
    assert not (tmp_path / "L.npy").exists()


def test_files_that_are_not_arrays_are_refused(features: Path, tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("1, 2, 3")
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "archive.npz", a=np.ones(3))
    for name in ("text.npy", "empty.npy", "archive.npz"):
        with pytest.raises(InvalidArgument, match=name):
            run("--features", tmp_path / name, "--output", tmp_path / "L.npy")
    np.save(tmp_path / "C.npy", np.ones(3))
    with pytest.raises(InvalidArgument, match="one id for each of the 250 rows"):
        run("--features", features, "--output", tmp_path / "L.npy", "--cameras", tmp_path / "C.npy")
    with pytest.raises(InvalidArgument, match="k2: is 6"):
        run("--features", features, "--output", tmp_path / "L.npy", "--k1", 5)
    with pytest.raises(InvalidArgument, match="convention"):
        run("--features", features, "--output", tmp_path / "L.npy", "--convention", "x")
    assert run("--features", features, "--output", "L.npy", "--k1", 1001).exit_code == 2


def test_ca_jaccard_takes_the_cameras(features: Path, tmp_path: Path) -> None:
    cameras = np.array(["gate", "hall"])[np.arange(250) % 2]
    np.save(tmp_path / "C.npy", cameras)
    shape = ["--distance", "ca-jaccard", "--k1-intra", 4, "--k1-inter", 9, "--k2-inter", 3]
    given = ["--features", features, "--output", tmp_path / "L.npy", *shape, "--eps", 0.7]
    answer = json.loads(run(*given, "--cameras", tmp_path / "C.npy", "--json").stdout)
    settings = ClusterSettings(distance="ca-jaccard", k1_intra=4, k1_inter=9, k2_inter=3, eps=0.7)
    expected = cluster(np.load(features), settings, cameras=np.arange(250) % 2)
    np.testing.assert_array_equal(np.load(tmp_path / "L.npy"), expected.labels)
    assert expected.clusters > 1
    assert (answer["k1_intra"], answer["k1_inter"], answer["k2_inter"]) == (4, 9, 3)
    assert "k1" not in answer
    with pytest.raises(InvalidArgument, match="needs the camera of every crop"):
        run(*given)
    with pytest.raises(InvalidArgument, match="distance: is 'euclid'; choose jaccard or ca-"):
        run(*given, "--distance", "euclid")


def test_eps_auto_names_its_choice(features: Path, tmp_path: Path) -> None:
    given = ["--features", features, "--output", tmp_path / "L.npy", "--eps", "auto"]
    answer = json.loads(run(*given, "--json").stdout)
    expected = cluster(np.load(features), ClusterSettings(eps="auto"))
    np.testing.assert_array_equal(np.load(tmp_path / "L.npy"), expected.labels)
    assert answer["eps"] == expected.eps
    assert answer["figures"]["eps_found"] == pytest.approx(expected.figures["eps_found"], abs=1e-4)
    assert expected.radius is not None
    assert expected.radius.reason in run(*given).stdout.replace("\n", " ")
    with pytest.raises(InvalidArgument, match="eps: is 'wide'; give a number"):
        run(*given[:-1], "wide")


def test_the_search_can_be_chosen_and_is_named(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_search, "_FEW_ROWS", 0)
    given = ["--features", features, "--output", tmp_path / "L.npy", "--json"]
    assert json.loads(run(*given).stdout)["neighbours"] == "exact"
    chosen = ["--neighbours", "approximate", "--neighbour-recall", 0.3]
    answer = json.loads(run(*given, *chosen).stdout)
    assert answer["neighbours"] == "approximate"
    assert 0.3 < answer["neighbour_recall"] <= 1
    assert any("approximate neighbours" in note for note in answer["notes"])
    above = json.loads(run(*given, "--approximate-above", 249, *chosen[2:]).stdout)
    assert above["neighbours"] == "approximate"
    with pytest.raises(InvalidArgument, match="neighbours: is 'all'; choose auto or exact or"):
        run(*given, "--neighbours", "all")
