"""A whole run: from crops to a better bundle; killed and resumed; refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adapt.evaluation.evaluate import evaluate_bundle
from adapt.training.config import RunConfig
from adapt.training.run import adapt
from resight.bundle.reader import open_bundle
from resight.errors import AlreadyExists, FailedPrecondition, InvalidArgument

MakeCrops = Callable[..., Path]
SETTINGS = {
    "backbone": "timm:test_efficientnet", "init": "random", "height": 32, "width": 16, "pad": 2,
    "p": 8, "k": 4, "epochs": 3, "iterations": 12, "k1": 12, "k2": 3, "lr": 1e-3, "device": "cpu",
    "erasing": 0.0, "bn_reestimate": 4, "threads": 1, "extraction": "torch",
}  # fmt: skip


def config(**changes: object) -> RunConfig:
    return RunConfig(**(SETTINGS | changes))  # type: ignore[arg-type]


def split(folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Query: the first crop of each identity; gallery: the others."""
    query, gallery = tmp_path / "query", tmp_path / "gallery"
    query.mkdir()
    gallery.mkdir()
    for path in sorted(folder.iterdir()):
        first = path.stem.endswith("000000_00")
        (query if first else gallery).joinpath(path.name).write_bytes(path.read_bytes())
    return query, gallery


def test_adaptation_raises_map_on_people_it_was_never_told_apart(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    train = make_crops(identities=24, each=8, cameras=2, noise=50, seed=1)
    query, gallery = split(make_crops(24, 8, 2, name="test", noise=50, seed=2), tmp_path)
    (train / "0001_c1s1_000099_00.jpg").write_bytes(b"")
    before = adapt(train, tmp_path / "before", config(epochs=0, bn_reestimate=0))
    after = adapt(
        train, tmp_path / "after", config(extraction="onnx"), cache=tmp_path / "before" / "cache"
    )
    maps = []
    for outcome in (before, after):
        bundle = open_bundle(outcome.directory.bundle)
        assert bundle.model_version == outcome.model_version
        maps.append(evaluate_bundle(bundle, query, gallery).metrics.map)
    assert maps[1] > maps[0] + 0.05, maps
    assert maps[1] > 0.3, maps

    summary = json.loads(after.directory.summary.read_text())
    assert summary["complete"]
    shipped = json.loads((after.directory.bundle / "summary.json").read_text())
    assert shipped["complete"] is True
    assert (shipped["run_id"], shipped["epochs"]) == (summary["run_id"], summary["epochs"])
    assert [epoch["epoch"] for epoch in summary["epochs"]] == [1, 2, 3]
    assert summary["crops"]["skipped_by_reason"] == {"zero-byte": 1}
    assert "zero-byte" in after.directory.skipped.read_text()
    assert after.directory.plot.read_bytes().startswith(b"\x89PNG")
    record = json.loads(after.directory.record.read_text())
    assert record["config"] == config(extraction="onnx").model_dump(mode="json")
    assert (after.directory.bundle / "weights.safetensors").is_file()


def test_the_control_changes_statistics_and_no_weight(
    make_crops: MakeCrops, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    crops = make_crops()
    plain = adapt(crops, tmp_path / "plain", config(epochs=0, bn_reestimate=0))
    control = adapt(crops, tmp_path / "control", config(method="bn-stats", epochs=0))
    assert plain.model_version != control.model_version
    first, second = (
        load_file(outcome.directory.bundle / "weights.safetensors") for outcome in (plain, control)
    )
    changed = {name for name, value in first.items() if not torch.equal(value, second[name])}
    assert changed
    assert all("running_" in name or "num_batches" in name for name in changed)


def test_a_killed_run_resumes_to_the_same_end(make_crops: MakeCrops, tmp_path: Path) -> None:
    crops = make_crops()
    options = [f"--set={key}={value}" for key, value in SETTINGS.items() if key != "device"]
    options += ["--set=deterministic=true", "--set=device=cpu", "--set=epochs=2",
                "--set=iterations=2"]  # fmt: skip

    def command(output: str, *more: str) -> list[str]:
        return ["adapt", "run", "--crops", str(crops), "--output", str(tmp_path / output),
                "--cache", str(tmp_path / "cache"), *options, *more]  # fmt: skip

    # Killed for real, at a point that does not depend on the machine's speed.
    script = """
        import os, signal, sys
        import adapt.training.engine as engine
        save = engine.save_checkpoint
        def save_and_die(*arguments):
            save(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[1] == "die":
            engine.save_checkpoint = save_and_die
        sys.argv = ["resight", *sys.argv[2:]]
        from resight.cli import main
        main()
    """

    def run(mode: str, arguments: list[str]) -> int:
        program = [sys.executable, "-c", textwrap.dedent(script), mode, *arguments]
        return subprocess.run(program, check=False, capture_output=True).returncode

    assert run("live", command("whole")) == 0
    assert run("die", command("cut")) == -signal.SIGKILL
    assert not (tmp_path / "cut" / "bundle").exists()
    assert run("live", command("cut", "--resume")) == 0
    whole, cut = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "cut")
    )
    assert torch.equal(whole["labels"], cut["labels"])
    assert all(torch.equal(value, cut["model"][name]) for name, value in whole["model"].items())
    versions = [open_bundle(tmp_path / n / "bundle").model_version for n in ("whole", "cut")]
    assert versions[0] == versions[1]


def test_a_finished_run_is_not_overwritten(make_crops: MakeCrops, tmp_path: Path) -> None:
    (tmp_path / "run" / "bundle").mkdir(parents=True)
    with pytest.raises(AlreadyExists, match="holds a finished run"):
        adapt(make_crops(name="a"), tmp_path / "run", config())
    with pytest.raises(AlreadyExists, match="not one of a finished run"):
        adapt(make_crops(name="b"), tmp_path / "run", config(), resume=True)


def test_an_unfinished_run_is_not_overwritten(make_crops: MakeCrops, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(AlreadyExists, match="--resume"):
        adapt(make_crops(), tmp_path / "run", config())


def test_two_runs_do_not_share_a_folder(make_crops: MakeCrops, tmp_path: Path) -> None:
    from adapt.training.directory import RunDirectory

    with (
        RunDirectory(tmp_path / "run").opened(resume=False),
        pytest.raises(FailedPrecondition, match="another run"),
    ):
        adapt(make_crops(), tmp_path / "run", config())


@pytest.mark.parametrize(("identities", "each"), [(1, 1), (1, 3)])
def test_too_few_crops(make_crops: MakeCrops, tmp_path: Path, identities: int, each: int) -> None:
    with pytest.raises(InvalidArgument, match=f"{identities * each} usable crops"):
        adapt(make_crops(identities, each), tmp_path / "run", config())


def test_no_usable_crop(tmp_path: Path) -> None:
    crops = tmp_path / "crops"
    crops.mkdir()
    (crops / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InvalidArgument):
        adapt(crops, tmp_path / "run", config())
    assert "a.jpg" in (tmp_path / "run" / "skipped.csv").read_text()


def test_output_that_is_a_file(make_crops: MakeCrops, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InvalidArgument, match="not a folder"):
        adapt(make_crops(), tmp_path / "run", config())
