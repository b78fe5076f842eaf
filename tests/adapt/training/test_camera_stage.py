"""CALR from crops to bundle: each camera's stage, killed and taken up, failing softly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from adapt.backbones.build import build_embedder
from adapt.data.augmentation import Normalisation
from adapt.methods import intra_camera
from adapt.methods.intra_camera import IntraCamera
from adapt.methods.local_clusters import LocalClusters
from adapt.methods.pivots import misplaced
from adapt.report.summary import RunSummary
from adapt.training import randomness
from adapt.training.camera_config import of_a_camera
from adapt.training.camera_stage import CameraStage
from adapt.training.checkpoint import Identity, network_digest
from adapt.training.config import RunConfig
from adapt.training.crop_set import read_crop_set
from adapt.training.device import Precision
from adapt.training.directory import RunDirectory
from adapt.training.extraction import choose_extractor
from adapt.training.run import adapt
from adapt.training.schedule import learning_rate
from adapt.training.views import Workload
from resight.errors import AlreadyExists, FailedPrecondition

MakeCrops = Callable[..., Path]
SETTINGS = {
    "method": "calr", "backbone": "timm:test_efficientnet", "init": "random", "height": 64,
    "width": 32, "pad": 2, "p": 4, "k": 4, "epochs": 2, "iterations": 2, "k1": 12, "k2": 3,
    "lr": 1e-3, "device": "cpu", "threads": 1, "extraction": "torch", "deterministic": True,
}  # fmt: skip
CALR = {
    "refine": True, "intra_epochs": 2, "intra_iterations": 2, "intra_p": 4, "intra_k1": 8,
    "entropy_epoch": 1, "camera_epochs": 1,
}  # fmt: skip


def config(calr: dict[str, object] | None = None, **changes: object) -> RunConfig:
    values = SETTINGS | changes | {"calr": CALR | (calr or {})}
    return RunConfig(**values)  # type: ignore[arg-type]


class Bench:
    """The stage alone, over the same crops and folder."""

    def __init__(self, crops: Path, tmp_path: Path) -> None:
        self.crops = crops
        self.folder = tmp_path / "local_clusters"
        self.cache = tmp_path / "cache"
        self.summary = RunSummary("calr", "test")

    def run(
        self,
        settings: RunConfig,
        *,
        seed: int = 1,
        should_stop: Callable[[float], bool] | None = None,
    ) -> list[list[int]]:
        torch.set_num_threads(1)
        device = torch.device("cpu")
        encoder = build_embedder(
            settings.backbone, pooling=None, neck=None, init="random", image_size=(64, 32),
            seed=seed,
        )  # fmt: skip
        crops = read_crop_set(
            self.crops, settings, cache=self.cache, skipped_csv=self.cache.with_suffix(".csv"),
            threads=1,
        )  # fmt: skip
        normalise = Normalisation(encoder.mean, encoder.std, device=device)
        extractor_of = partial(choose_extractor, None, settings, normalise=normalise, device=device)
        work = Workload(
            crops.cache, crops.cameras.codes, normalise, extractor_of(crops.cache), 2, device
        )
        identity = Identity(settings.model_dump(mode="json"), network_digest(encoder), "crops")
        self.summary = RunSummary("calr", "test")
        stage = CameraStage(
            encoder, settings, crops, work, extractor_of, folder=self.folder, identity=identity,
            summary=self.summary,
        )  # fmt: skip
        labels, codes = stage.run(should_stop), crops.cameras.codes
        assert codes is not None
        groups = [labels[codes == code] for code in range(codes.max() + 1)]
        assert sum(len(set(group)) for group in groups) == len(set(labels))
        assert len(set(labels)) == labels.max() + 1
        return [group.tolist() for group in groups]


def kept(output: Path) -> list[list[int]]:
    results = sorted((output / "local_clusters").glob("camera-????.pt"))
    return [torch.load(path, weights_only=True)["labels"].tolist() for path in results]


def test_a_run_keeps_the_best_labels_of_each_camera_and_reports_them(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    outcome = adapt(make_crops(12, 9, 3), tmp_path / "run", config(extraction="onnx"))
    summary = json.loads(outcome.directory.summary.read_text())
    assert summary["complete"]
    assert [camera["camera"] for camera in summary["local_clusters"]] == ["c1", "c2", "c3"]
    for camera, labels in zip(summary["local_clusters"], kept(tmp_path / "run"), strict=True):
        assert camera["crops"] == len(labels) == 36
        assert camera["clusters"] == len(set(labels)) == 36 // 5
        # Labelled before each of two epochs and once after them.
        assert len(camera["silhouettes"]) == 3
        assert camera["silhouette"] == max(camera["silhouettes"])
        assert camera["silhouettes"].index(camera["silhouette"]) == camera["kept_epoch"]
        assert len(camera["losses"]) == 2
    assert summary["seconds"]["local_clusters"] > 0
    assert all("refined" in epoch["extra"] for epoch in summary["epochs"])
    assert not list((tmp_path / "run" / "local_clusters").glob("*.checkpoint.pt"))
    weights = (outcome.directory.bundle / "weights.safetensors").read_bytes()
    assert b"layers." not in weights  # the camera head stays behind


# One process imports all that is slow, and forks a process for each run before anything else.
DRIVER = """
    import json, os, signal, sys
    import adapt.training.camera_stage as stage
    import adapt.training.engine as engine
    import adapt.training.resolve
    import adapt.training.run
    from resight.cli import main

    def child(fatal, command):
        save = stage.save_checkpoint
        def save_then_die(path, *rest):
            save(path, *rest)
            if path.name == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        stage.save_checkpoint = engine.save_checkpoint = save_then_die
        # The checkpoint says all that a bundle would.
        adapt.training.run._Run._export = lambda *_: "none"
        sys.argv = ["resight", *command]
        try:
            main()
        except SystemExit as end:
            os._exit(end.code or 0)  # native threads did not come through the fork

    for fatal, command in json.loads(sys.argv[1]):
        process = os.fork()
        if not process:
            child(fatal, command)
        ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print("ended", ended, flush=True)
"""


def test_killed_between_and_within_cameras_it_ends_the_same(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    crops = make_crops(8, 9, 3)
    options = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    options += [f"--set=calr.{key}={value}" for key, value in CALR.items()]

    def command(output: str, *more: str) -> list[str]:
        return ["adapt", "run", "--crops", str(crops), "--output", str(tmp_path / output),
                "--cache", str(tmp_path / "cache"), *options, *more]  # fmt: skip

    # Killed for real, each time right after the named file has been written.
    runs = [
        ("", command("whole")),
        ("camera-0000.pt", command("cut")),
        ("camera-0001.checkpoint.pt", command("cut", "--resume")),
        ("checkpoint.pt", command("cut", "--resume")),
        ("", command("cut", "--resume")),
    ]
    program = [sys.executable, "-c", textwrap.dedent(DRIVER), json.dumps(runs)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    ended = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("ended")]
    assert ended == [0, *[-signal.SIGKILL] * 3, 0], done.stderr

    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")
    whole, cut = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "cut")
    )
    assert torch.equal(whole["labels"], cut["labels"])
    for part in ("model", "heads"):
        assert all(torch.equal(value, cut[part][name]) for name, value in whole[part].items())
    first, second = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut")
    )
    for ours, theirs in zip(first["local_clusters"], second["local_clusters"], strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    for epochs in zip(first["epochs"], second["epochs"], strict=True):
        assert epochs[0]["loss"] == epochs[1]["loss"]


def test_a_folder_with_results_is_an_unfinished_run(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    (tmp_path / "local_clusters").mkdir()
    with directory.opened(resume=False):
        (tmp_path / "local_clusters" / "camera-0000.pt").write_bytes(b"")
    with pytest.raises(AlreadyExists, match="--resume"):
        directory.opened(resume=False).__enter__()
    with directory.opened(resume=True):
        pass


def test_what_is_there_is_taken_up_and_changes_no_generator(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    bench = Bench(make_crops(8, 6, 2), tmp_path)
    randomness.seed_everything(4)
    expected = torch.rand(3)
    randomness.seed_everything(4)
    labels = bench.run(config())
    assert torch.equal(torch.rand(3), expected)
    records = bench.summary.local_clusters
    (bench.folder / "camera-0000.pt").unlink()  # the second camera's does not depend on it
    assert bench.run(config()) == labels
    assert bench.summary.local_clusters[1] == records[1]


@pytest.mark.parametrize(
    ("settings", "seed", "words"),
    [(config({"intra_k2": 3}), 1, "calr"), (config(seed=2), 1, "seed")],
)
def test_results_of_other_settings_are_refused(
    make_crops: MakeCrops, tmp_path: Path, settings: RunConfig, seed: int, words: str
) -> None:
    bench = Bench(make_crops(8, 3, 2), tmp_path)
    bench.run(config())
    with pytest.raises(FailedPrecondition, match=words) as caught:
        bench.run(settings, seed=seed)
    assert caught.value.reason == "CHECKPOINT_MISMATCH"


def test_without_its_epochs_the_encoder_is_labelled_as_it_is(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    crops = make_crops(8, 8, 2)
    (tmp_path / "untouched").mkdir()
    untouched, trained = Bench(crops, tmp_path / "untouched"), Bench(crops, tmp_path)
    untouched.run(config({"intra_epochs": 0}))
    trained.run(config())
    for before, after in zip(
        untouched.summary.local_clusters, trained.summary.local_clusters, strict=True
    ):
        assert (before["kept_epoch"], before["losses"]) == (0, [])
        # The first labelling of a camera that is then trained is that of the untouched encoder.
        assert before["silhouettes"] == after["silhouettes"][:1]
        assert len(set(after["silhouettes"])) > 1


def test_a_camera_with_too_few_crops_is_one_local_cluster(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    crops = make_crops(10, 4, 2)
    for shot, path in enumerate(sorted(crops.iterdir())[:3]):
        path.rename(crops / f"{shot:04d}_c7s1_000000_00.png")
    bench = Bench(crops, tmp_path)
    local = np.array(bench.run(config())[2])
    assert any(
        "camera c7" in warning and "one local cluster" in warning
        for warning in bench.summary.warnings
    )
    # So none of them leaves the cluster of another that is its pivot.
    together, camera = np.zeros(3, dtype=np.int64), np.full(3, 2, dtype=np.int32)
    assert not misplaced(together, np.array([1]), camera, local).any()


class StopAt:
    """True at the question of a number, counted from 1."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.told: list[float] = []

    def __call__(self, seconds: float) -> bool:
        self.told.append(seconds)
        return len(self.told) == self.number


def test_a_stage_stopped_within_a_camera_keeps_its_labels_and_has_none_of_those_after(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    bench = Bench(make_crops(8, 9, 3), tmp_path)
    stop = StopAt(3)  # two epochs of the first camera, then one of the second
    first, second, third = bench.run(config(), should_stop=stop)
    assert len(stop.told) == 3
    assert all(seconds > 0 for seconds in stop.told)
    assert [len(set(group)) for group in (first, second, third)] == [24 // 5, 24 // 5, 1]
    assert any("camera c2: stopped after epoch 1 of 2" in w for w in bench.summary.warnings)
    assert any("after camera c2" in w and "the 1 that" in w for w in bench.summary.warnings)
    # What was cut goes on from where it was.
    results = sorted(path.name for path in bench.folder.iterdir())
    assert results == ["camera-0000.pt", "camera-0001.checkpoint.pt"]
    continued = bench.run(config())
    (tmp_path / "whole").mkdir()
    assert Bench(bench.crops, tmp_path / "whole").run(config()) == continued


def test_a_stage_stopped_between_cameras_leaves_those_that_remain(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    bench = Bench(make_crops(8, 9, 3), tmp_path)
    found = bench.run(config({"intra_epochs": 0}), should_stop=StopAt(1))
    assert [len(set(group)) for group in found] == [24 // 5, 1, 1]
    assert len(bench.summary.local_clusters) == 1
    assert any("the 2 that were left to do" in warning for warning in bench.summary.warnings)


def test_a_stopped_run_ends_its_first_stage_too(make_crops: MakeCrops, tmp_path: Path) -> None:
    outcome = adapt(
        make_crops(12, 9, 3), tmp_path / "run", config(), should_stop=lambda _seconds: True
    )
    assert len(outcome.summary.local_clusters) == 1
    assert len(outcome.summary.epochs) == 1


def test_without_refinement_there_is_no_first_stage(make_crops: MakeCrops, tmp_path: Path) -> None:
    outcome = adapt(make_crops(12, 9, 3), tmp_path / "run", config({"refine": False}, epochs=1))
    assert outcome.summary.local_clusters == []
    assert "local_clusters" not in outcome.summary.seconds
    assert not (tmp_path / "run" / "local_clusters").exists()
    assert any("calr.refine=false" in warning for warning in outcome.summary.warnings)


@pytest.mark.parametrize(
    ("warmup", "first"),
    [({"warmup_iterations": 3}, 1 / 3), ({"warmup_iterations": 4}, 1), ({"warmup_epochs": 9}, 1)],
)
def test_no_camera_is_all_warm_up(warmup: dict[str, int], first: float) -> None:
    settings = config(None, schedule="constant", lr=1.0, **warmup)
    stage = of_a_camera(settings)
    # Of its 2 epochs of 2 steps.
    assert [learning_rate(stage, step, 2) for step in (0, 3)] == pytest.approx([first, 1])


def test_a_camera_whose_training_fails_keeps_its_labels(
    make_crops: MakeCrops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = IntraCamera.loss
    monkeypatch.setattr(IntraCamera, "loss", lambda self, batch: loss(self, batch) * torch.nan)
    bench = Bench(make_crops(8, 6, 2), tmp_path)
    bench.run(config())
    for camera in bench.summary.local_clusters:
        assert (camera["kept_epoch"], camera["clusters"]) == (0, 24 // 5)
        assert any("labels so far are kept" in note for note in camera["notes"])


def test_steps_of_a_camera_that_overflow_are_counted(
    make_crops: MakeCrops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Scaled(Precision):
        def __init__(self, precision: str, device: torch.device) -> None:
            super().__init__(precision, device)
            self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    monkeypatch.setattr("adapt.training.step.Precision", Scaled)
    bench = Bench(make_crops(8, 6, 2), tmp_path)
    bench.run(config())
    for camera in bench.summary.local_clusters:
        [note] = camera["notes"]
        assert note.endswith("steps were left out, for float16 overflowed")
        assert 1 <= int(note.split()[0]) <= 4


def test_a_single_local_cluster_is_no_end(
    make_crops: MakeCrops, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one(features: NDArray[np.float32], *_: object, **__: object) -> LocalClusters:
        return LocalClusters(np.zeros(len(features), dtype=np.int64), (-1.0,))

    monkeypatch.setattr(intra_camera, "local_clusters", one)
    bench = Bench(make_crops(8, 6, 2), tmp_path)
    assert bench.run(config()) == [[0] * 24, [1] * 24]
    assert bench.summary.local_clusters[0]["losses"] == [0.0, 0.0]


def test_one_camera_works(make_crops: MakeCrops, tmp_path: Path) -> None:
    outcome = adapt(make_crops(10, 6, 1), tmp_path / "run", config({"entropy_epoch": 0}))
    assert np.isfinite([epoch.loss for epoch in outcome.summary.epochs]).all()
    assert len(outcome.summary.local_clusters) == 1
    assert any("one camera" in warning for warning in outcome.summary.warnings)


def test_crops_without_cameras_are_refused(make_crops: MakeCrops, tmp_path: Path) -> None:
    crops = make_crops(8, 4, 2)
    path = sorted(crops.iterdir())[0]
    path.rename(crops / "somebody.png")
    with pytest.raises(FailedPrecondition, match="camera of every crop"):
        adapt(crops, tmp_path / "run", config())
