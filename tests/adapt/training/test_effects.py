"""Idle settings: each named where it is idle, none elsewhere, and idle indeed."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from adapt.methods.grouping import group
from adapt.training.config import RunConfig
from adapt.training.effects import _TABLE, given_keys, without_effect
from adapt.training.presets import PRESETS
from adapt.training.resolve import known_keys, resolve
from adapt.training.schedule import iterations_per_epoch, learning_rate

# What makes them idle; what was given; the same with which it is not idle.
CASES = [
    ("method=bn-stats", "lr=.1 temperature=.1 k1=15 precision=fp32", "method=spcl"),
    ("iterations=5", "passes=2 min_iterations=2 max_iterations=9", ""),
    ("ignore_cameras=true", "camera_aware=true", ""),
    ("erasing=0", "erasing_fill=mean", "erasing=.1"),
    ("schedule=cosine", "step_epochs=3 step_factor=.2", "schedule=step"),
    ("method=pplr", "momentum=.3", "method=cap"),
    ("method=pplr pplr.lambda_camera=0", "temperature=.3 pplr.hard_negatives=4", "method=pplr"),
    ("method=calr calr.clustering=infomap", "eps=.4 min_samples=3 neighbours=exact", "method=calr"),
    ("distance=ca-jaccard", "k1=9 k2=3", ""),
    ("", "k1_intra=4 k1_inter=9 k2_intra=3 k2_inter=3", "distance=ca-jaccard"),
    ("neighbours=exact", "approximate_above=9 neighbour_recall=.9", ""),
    ("neighbours=approximate", "approximate_above=9", ""),
    ("", "track_gap_seconds=4", "tracklets=link"),
    ("tracklets=separate", "apart_seconds=4", "tracklets=separate apart_cameras=all"),
    ("freeze_bn=true", "bn_group=16", "freeze_bn=true bn_reestimate=3"),
    ("", "teacher.decay=.9 teacher.triplet=1", "teacher.weight=.5"),
    ("method=spcl spcl.self_paced=false", "spcl.eps_gap=.01", "method=spcl"),
    (
        "method=cap cap.intra_weight=1 cap.inter_weight=0",
        "cap.inter_epoch=2 cap.hard_negatives=4",
        "method=cap cap.intra_weight=1",
    ),
    ("method=pplr pplr.parts=0", "pplr.pglr=true pplr.smoothing=.2", "method=pplr"),
    ("method=pplr pplr.aals=false", "pplr.aals_epoch=2", "method=pplr"),
    ("method=pplr pplr.aals_epoch=0", "pplr.smoothing=.2", "method=pplr"),
    ("method=pplr pplr.pglr=false", "pplr.beta=.2", "method=pplr"),
    ("method=pplr pplr.pglr=false pplr.aals=false", "pplr.agreement_neighbours=9", "method=pplr"),
    (
        "method=calr calr.refine=false",
        "calr.pivot=best calr.min_cosine=.2",
        "method=calr calr.refine=true",
    ),
    ("method=calr", "calr.min_size=9", "method=calr calr.clustering=infomap"),
    (
        "method=calr calr.refine=true calr.intra_epochs=0",
        "calr.intra_p=9",
        "method=calr calr.refine=true",
    ),
    ("method=calr calr.entropy_weights=false", "calr.entropy_epoch=2", "method=calr"),
    ("method=calr calr.camera_epochs=0", "calr.camera_loss=paper", "method=calr"),
    ("export.fp16=false", "export.min_overlap=.9", "export.int8=true"),
    ("export.calibration=off", "export.prior=.1 export.simultaneous=3", "export.calibration=auto"),
    ("export.calibration=clusters", "export.views_overlap=true", "export.calibration=tracklets"),
    ("warmup_epochs=2", "warmup_iterations=39", "warmup_epochs=1"),
    ("warmup_iterations=41", "warmup_epochs=2", "warmup_iterations=40"),
]


def idle(settings: str, *, preset: str = "fast") -> set[str]:
    config = resolve(assignments=[f"preset={preset}", *settings.split()])
    warnings = list(without_effect(config, 20))
    assert all(" has no effect " in warning for warning in warnings)
    return {warning.split()[0] for warning in warnings}


@pytest.mark.parametrize(("cause", "given", "other"), CASES)
def test_what_is_idle_is_named_and_nothing_else(cause: str, given: str, other: str) -> None:
    keys = {setting.partition("=")[0] for setting in given.split()}
    assert idle(f"{cause} {given}") == keys
    assert not idle(f"{other} {given}") & keys
    assert not idle(cause)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("method", list(PRESETS["fast"]))
def test_values_of_presets_are_not_meant(preset: str, method: str) -> None:
    assert not idle(f"method={method}", preset=preset)


def test_the_table_names_settings() -> None:
    known = list(known_keys())
    for entry in _TABLE:
        for pattern in entry.keys.split():
            assert any(fnmatchcase(key, pattern) for key in known), pattern


def test_what_was_given_is_known_wherever_it_was_given(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('method = "spcl"\n[spcl]\neps_gap = 0.01\n')
    config = resolve(file=file, assignments=["lr=1e-3"], options={"epochs": 2, "seed": None})
    assert set(given_keys(config)) == {"method", "preset", "lr", "epochs", "spcl.eps_gap"}
    assert set(given_keys(RunConfig(lr=1e-3))) == {"lr"}
    assert config == RunConfig(**config.model_dump())


def test_idle_ones_change_no_rate_and_no_length() -> None:
    def made(settings: str) -> list[float]:
        config = resolve(assignments=["preset=fast", *settings.split()])
        steps = iterations_per_epoch(config, 1000)
        return [learning_rate(config, step, steps) for step in range(3 * steps)]

    for cause, given in [("iterations=5", "passes=2 min_iterations=2 max_iterations=9"),
                         ("schedule=cosine", "step_epochs=1 step_factor=.2"),
                         ("warmup_epochs=2 iterations=20", "warmup_iterations=39")]:  # fmt: skip
        assert made(cause) == made(f"{cause} {given}")


@pytest.mark.parametrize(
    ("cause", "given"),
    [("distance=ca-jaccard", "k1=9 k2=3"),
     ("distance=jaccard", "k1_intra=2 k1_inter=3 k2_intra=1 k2_inter=0"),
     ("neighbours=exact", "approximate_above=0 neighbour_recall=.5")],
)  # fmt: skip
def test_idle_ones_change_no_cluster(cause: str, given: str) -> None:
    random = np.random.default_rng(0)
    rows = np.repeat(random.normal(size=(9, 16)), 9, axis=0) + 0.4 * random.normal(size=(81, 16))
    vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    cameras = (np.arange(81) % 3).astype(np.int32)

    def labels(settings: str) -> set[tuple[int, int]]:
        config = resolve(assignments=["preset=fast", "threads=1", *settings.split()])
        return set(enumerate(group(vectors, config, cameras).labels))

    assert labels(cause) == labels(f"{cause} {given}")
    assert len({label for _, label in labels(cause)}) > 2
