"""Settings: precedence, unknown keys, values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapt.training.config import RunConfig
from adapt.training.presets import PRESETS
from adapt.training.resolve import known_keys, resolve
from adapt.training.schedule import iterations_per_epoch
from resight.errors import InvalidArgument

DOCS = Path(__file__).resolve().parents[3] / "docs" / "adapt.md"


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("device: cpu\nlr: 0.01\neps: 0.5\nepochs: 7\nspcl: {eps_gap: 0.03}\n")
    config = resolve(
        file=file,
        assignments=["eps=0.55", "epochs=8", "method=spcl", "preset=published"],
        options={"epochs": 9, "seed": None},
    )
    assert (config.momentum, config.lr, config.eps, config.epochs) == (0.2, 0.01, 0.55, 9)
    assert config.spcl.eps_gap == 0.03
    assert config.spcl.self_paced
    assert config.seed == 1


@pytest.mark.parametrize(
    ("suffix", "text"),
    [(".yml", "spcl:\n  eps_gap: 0.01"), (".toml", "[spcl]\neps_gap = 0.01"),
     (".json", '{"spcl": {"eps_gap": 0.01}}')],
)  # fmt: skip
def test_file_types(tmp_path: Path, suffix: str, text: str) -> None:
    file = tmp_path / f"run{suffix}"
    file.write_text(text)
    assert resolve(file=file, options={"method": "spcl"}).spcl.eps_gap == 0.01


@pytest.mark.parametrize(
    ("assignment", "hint"),
    [("epoch=3", "epochs"), ("eps_gap=0.1", "spcl.eps_gap"), ("spcl.gap=0.1", "spcl.eps_gap"),
     ("memory_update=hard", "cluster_contrast.memory_update"), ("qqqqqq=1", "docs/adapt.md")],
)  # fmt: skip
def test_unknown_keys_are_named_with_their_neighbours(assignment: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve(assignments=[assignment])
    assert caught.value.field == assignment.partition("=")[0]
    assert hint in caught.value.message


@pytest.mark.parametrize(
    ("assignments", "field"),
    [(["lr=fast"], "lr"), (["epochs=-1"], "epochs"), (["lr=.nan"], "lr"), (["p=1"], "p"),
     (["spcl.eps_gap=0.01"], "spcl.eps_gap"), (["spcl=3", "method=spcl"], "spcl"),
     (["method=sclp"], "method"), (["preset=slow"], "preset"), (["nonsense"], "set")],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(assignments: list[str], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve(assignments=assignments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "assignments",
    [["bn_group=48"], ["k2=31"], ["features=memory"], ["method=spcl", "eps=0.99"],
     ["min_iterations=500"], ["method=cap", "cap.intra_weight=0", "cap.inter_epoch=1"]],
)  # fmt: skip
def test_settings_that_contradict_each_other_are_refused(assignments: list[str]) -> None:
    with pytest.raises(InvalidArgument):
        resolve(assignments=["preset=fast", *assignments])


def test_the_batches_of_calrs_cameras_are_cut_into_whole_groups() -> None:
    settings = ["method=calr", "preset=published", "calr.intra_p=5"]
    with pytest.raises(InvalidArgument, match=r"calr.intra_p x calr.intra_k = 20"):
        resolve(assignments=settings)
    for more in ("bn_group=4", "bn_group=0", "calr.refine=false", "calr.intra_epochs=0"):
        resolve(assignments=[*settings, more])


@pytest.mark.parametrize("method", ["cluster-contrast", "spcl", "calr", "pplr", "cap"])
@pytest.mark.parametrize("crops", [64, 640, 1984, 4992, 6400, 12_936, 50_000])
def test_a_night_is_four_times_as_long_as_the_fast_preset(method: str, crops: int) -> None:
    fast, night = (resolve(options={"preset": p, "method": method}) for p in ("fast", "night"))
    steps = [c.epochs * iterations_per_epoch(c, crops) for c in (fast, night)]
    assert steps[1] == 4 * steps[0]
    assert night.epochs == 2 * fast.epochs
    if crops == 12_936:
        assert (night.epochs, iterations_per_epoch(night, crops)) == (10, 200)


def test_yamls_off_is_the_word(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("tracklets: off\nexport: {calibration: off}\n")
    config = resolve(file=file, assignments=["tracklets=off"])
    assert (config.tracklets, config.export.calibration) == ("off", "off")


def test_numbers_in_scientific_notation() -> None:
    assert resolve(assignments=["lr=1e-4"]).lr == 1e-4


@pytest.mark.parametrize(
    ("name", "text"), [("run.ini", "a"), ("run.yaml", "["), ("run.json", "[]"), ("none.yaml", None)]
)
def test_bad_files_are_refused(tmp_path: Path, name: str, text: str | None) -> None:
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidArgument) as caught:
        resolve(file=file)
    assert caught.value.field == "config"


def test_every_preset_is_valid_and_a_resolved_one_resolves_to_itself() -> None:
    for preset, methods in PRESETS.items():
        for method in methods:
            config = resolve(options={"preset": preset, "method": method})
            again = RunConfig(**json.loads(json.dumps(config.model_dump(mode="json"))))
            assert again == config


def test_published_recipes() -> None:
    contrast = resolve(options={"preset": "published"})
    assert (contrast.p, contrast.k, contrast.bn_group, contrast.epochs) == (16, 16, 64, 50)
    assert (contrast.temperature, contrast.momentum, contrast.lr) == (0.05, 0.1, 3.5e-4)
    spcl = resolve(options={"preset": "published", "method": "spcl"})
    assert (spcl.p, spcl.k, spcl.bn_group, spcl.momentum) == (16, 4, 16, 0.2)
    assert (spcl.features, spcl.spcl.eps_gap) == ("memory", 0.02)
    calr = resolve(options={"preset": "published", "method": "calr"})
    assert (calr.p, calr.k, calr.bn_group, calr.momentum) == (16, 16, 64, 0.1)
    stage = calr.calr
    assert (stage.intra_epochs, stage.intra_iterations) == (20, 100)
    assert (stage.intra_p * stage.intra_k, stage.intra_k1, stage.intra_k2) == (256, 15, 4)
    assert (stage.local_clusters.mode, stage.local_clusters.value) == ("ratio", 1 / 5)
    assert (stage.entropy_epoch, stage.camera_epochs, stage.camera_loss) == (5, 3, "as_released")
    pplr = resolve(options={"preset": "published", "method": "pplr"})
    assert (pplr.height, pplr.width, pplr.p, pplr.k, pplr.bn_group) == (384, 128, 16, 4, 16)
    assert (pplr.pplr.parts, pplr.pplr.aals_epoch, pplr.pplr.lambda_camera) == (3, 5, 0.5)
    cap = resolve(options={"preset": "published", "method": "cap"})
    assert (cap.p, cap.k, cap.k1, cap.eps, cap.temperature) == (8, 4, 20, 0.5, 0.07)
    assert (cap.cap.inter_epoch, cap.cap.inter_weight, cap.warmup_epochs) == (5, 0.5, 10)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_the_control_sees_the_batches_of_the_method_it_controls(preset: str) -> None:
    contrast, control = (
        resolve(options={"preset": preset, "method": method})
        for method in ("cluster-contrast", "bn-stats")
    )
    # All that decides which pixels a batch-norm layer averages over, and how many crops at once.
    for field in ("height", "width", "resize_filter", "p", "k", "bn_group"):
        assert getattr(control, field) == getattr(contrast, field), field
    assert control.epochs == 0


def test_every_setting_is_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [key for key in known_keys() if f"`{key}`" not in text] == []


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_file_that_is_nested_too_deeply_is_an_error(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"run{suffix}"
    file.write_text("[" * 30_000)
    with pytest.raises(InvalidArgument, match="config"):
        resolve(file=file)
