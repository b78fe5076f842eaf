"""What is said of settings before a run begins."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from adapt.training.cautions import cautions
from adapt.training.resolve import resolve

CROPS: Any = SimpleNamespace(
    cache=range(640),
    cameras=SimpleNamespace(notes=(), codes=()),
    constraints=SimpleNamespace(notes=()),
)


def said(*assignments: str, iterations: int = 20) -> list[str]:
    config = resolve(assignments=["preset=fast", *assignments])
    return list(cautions(config, config, CROPS, None, iterations=iterations, learns=True))


@pytest.mark.parametrize("method", ["cluster-contrast", "spcl", "calr", "pplr", "cap"])
def test_the_fast_preset_reaches_all_that_it_asks_for(method: str) -> None:
    assert said(f"method={method}", *(["calr.refine=true"] if method == "calr" else [])) == []


def test_the_fast_preset_says_that_it_leaves_the_first_stage_of_calr_out() -> None:
    [caution] = said("method=calr")
    assert "calr.intra_*" in caution


@pytest.mark.parametrize(
    ("method", "key", "off"),
    [("cap", "cap.inter_epoch", "cap.inter_weight=0"),
     ("calr", "calr.entropy_epoch", "calr.entropy_weights=false"),
     ("pplr", "pplr.aals_epoch", "pplr.aals=false")],
)  # fmt: skip
def test_what_begins_after_the_last_epoch_is_said(method: str, key: str, off: str) -> None:
    settings = [f"method={method}", "epochs=3"]
    if method == "cap":
        # So that a loss is left where the contrast across cameras is off.
        settings.append("cap.intra_weight=1")
    if method == "calr":
        settings.append("calr.refine=true")
    assert said(*settings, f"{key}=2") == []
    [caution] = said(*settings, f"{key}=3")
    assert f"{key}=3 is never reached in 3 epochs" in caution
    [caution] = said(*settings, f"{key}=3", off)
    assert caution == f"{key} has no effect with {off}"


@pytest.mark.parametrize(
    ("warmup", "covered"),
    [("warmup_iterations=59", False), ("warmup_iterations=60", True), ("warmup_epochs=3", True)],
)
def test_a_warm_up_as_long_as_the_run_is_said(warmup: str, covered: bool) -> None:
    found = said("epochs=3", warmup)
    assert [("covers the whole run of 60" in caution) for caution in found] == [True] * covered


def test_a_warm_up_as_long_as_a_cameras_stage_is_said() -> None:
    calr = [
        "method=calr",
        "calr.refine=true",
        "epochs=9",
        "calr.intra_epochs=2",
        "calr.intra_iterations=10",
    ]
    assert said(*calr, "warmup_iterations=19") == []
    [caution] = said(*calr, "warmup_iterations=20")
    assert "each camera's stage" in caution
    without = [*calr, "warmup_iterations=20", "calr.intra_epochs=0"]
    assert not [caution for caution in said(*without) if "each camera's stage" in caution]


def test_the_first_stage_that_a_run_without_refinement_lacks_is_said() -> None:
    [caution] = said("method=calr", "calr.refine=false")
    assert "calr.intra_*" in caution
