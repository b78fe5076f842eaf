"""The record of a run: whole files, restored epochs, a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.report.plot import draw
from adapt.report.summary import EpochRecord, RunSummary, write_json


def record(epoch: int, loss: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch, clusters=10 * epoch, outliers=5, largest=7, loss=loss, lr=1e-3, iterations=4,
        images_per_second=99.0, seconds={"extract": 1.0, "cluster": 0.5, "train": 2.0},
        cluster_seconds={"dbscan": 0.1},
    )  # fmt: skip


def test_a_restored_summary_goes_on_where_the_first_stopped() -> None:
    first = RunSummary("spcl", "one", epochs=[record(1, 2.0)], warnings=["few crops"])
    stored = json.loads(json.dumps(first.payload()))
    second = RunSummary("spcl", "two", warnings=["few crops", "one camera"])
    second.restore(stored)
    assert second.run_id == "one"
    assert second.epochs == first.epochs
    assert second.warnings == ["few crops", "one camera"]


def test_a_warning_is_kept_once() -> None:
    summary = RunSummary("spcl", "one")
    assert [summary.warn("a"), summary.warn("a"), summary.warn("b")] == [True, False, True]
    assert summary.warnings == ["a", "b"]


def test_a_failed_write_leaves_the_file_before(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {("not", "a key"): 2})  # type: ignore[dict-item]
    assert json.loads(path.read_text()) == {"a": 1}


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_the_plot_shows_the_epochs(epochs: int) -> None:
    records = [record(n + 1, 3.0 - n) for n in range(epochs)]
    summary = RunSummary("spcl", "one", crops={"usable": 100}, epochs=records)
    picture = np.asarray(Image.open(io.BytesIO(draw(summary))).convert("L"))
    other = np.asarray(Image.open(io.BytesIO(draw(RunSummary("spcl", "one")))).convert("L"))
    assert picture.shape == other.shape
    assert (picture != other).any() == (epochs > 0 or summary.crops != {})
