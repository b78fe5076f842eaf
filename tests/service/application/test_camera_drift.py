"""Which crops drift is measured on, what the metrics are told, and when a camera is looked at."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import pytest

from service.application import camera_drift
from service.application.application import Application
from service.application.ingest import IngestItem, Outcome
from service.domain.drift import drift
from service.domain.ports import Priority
from service.telemetry import REGISTRY

COUNT = 8
DIMENSION = 16
SETTINGS = {"metrics": {"drift_crops": COUNT, "drift_seconds": 0}}


class Readable:
    """An embedder whose images are the vectors themselves, and a byte that tells them apart."""

    model_version = "readable-1"
    dimension = DIMENSION

    async def embed_image(
        self, data: bytes, *, priority: Priority, deadline: float | None
    ) -> np.ndarray:
        assert (priority, deadline) == (Priority.BULK, None)
        return np.frombuffer(data[: 4 * DIMENSION], "<f4")


def vector(seed: int, *, moved: bool = False) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(DIMENSION)
    values[1 if moved else 0] += 4.0
    return (values / np.linalg.norm(values)).astype("<f4")


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


@pytest.fixture
def store(at: Callable[[float], datetime]) -> Callable[..., Any]:
    """Store one crop for each vector, in order."""

    async def submit(
        application: Application, camera: str, vectors: list[np.ndarray], tracks: list[str]
    ) -> None:
        for number, (value, track) in enumerate(zip(vectors, tracks, strict=True)):
            item = IngestItem("", camera, at(number), value.tobytes(), track_id=track)
            assert (await application.ingest.submit(item)).outcome is Outcome.ACCEPTED

    return submit


def test_one_crop_of_each_track_from_either_end_with_the_live_model(
    opened: Any, run: Any, store: Any
) -> None:
    """40 tracks of two crops: the first crops of the first eight, the last of the last eight."""
    tracks = [f"t{number // 2}" for number in range(80)]
    still = [vector(number) for number in range(80)]
    moving = [vector(100 + number, moved=number >= 50) for number in range(80)]

    async def work() -> None:
        async with opened(with_embedder=Readable(), **SETTINGS) as application:
            await store(application, "c1", still, tracks)
            await store(application, "c2", moving, tracks)
            await store(application, "c3", still[:10], [""] * 10)
            await application.watching.drift.look()

    run(work())
    expected = {
        name: drift(
            np.stack([vectors[2 * number] for number in range(COUNT)]),
            np.stack([vectors[79 - 2 * number] for number in range(COUNT)]),
        )
        for name, vectors in (("c1", still), ("c2", moving))
    }
    assert expected["c2"].shift > 0.5 > expected["c1"].shift
    worst = gauge("resight_drift_shift", gallery="default", quantile="1")
    middle = gauge("resight_drift_shift", gallery="default", quantile="0.5")
    assert worst == pytest.approx(expected["c2"].shift, abs=1e-6)
    assert middle == pytest.approx((expected["c1"].shift + expected["c2"].shift) / 2, abs=1e-6)
    low = gauge("resight_drift_low_match_share", gallery="default", quantile="1")
    assert low == max(one.low_match_share for one in expected.values())
    assert gauge("resight_drift_cameras", gallery="default", state="measured") == 2
    assert gauge("resight_drift_cameras", gallery="default", state="too_few") == 1
    assert gauge("resight_camera_drift_shift", gallery="default", camera="c1") is None


def test_cameras_have_series_only_where_that_is_set_and_only_so_many(
    opened: Any, run: Any, store: Any
) -> None:
    settings = {"metrics": SETTINGS["metrics"] | {"camera_labels": True, "max_camera_labels": 2}}
    vectors = [vector(number) for number in range(2 * COUNT)]

    async def work() -> None:
        async with opened(with_embedder=Readable(), **settings) as application:
            for name in ("c1", "c2", "c3"):
                await store(application, name, vectors, [""] * len(vectors))
            await application.watching.drift.look()

    run(work())
    shown = [
        gauge("resight_camera_drift_shift", gallery="default", camera=name)
        for name in ("c1", "c2", "c3")
    ]
    assert shown[0] == shown[1] == pytest.approx(drift(*np.split(np.stack(vectors), 2)).shift)
    assert shown[2] is None
    assert gauge("resight_drift_cameras_unlabelled") == 1


def test_a_camera_without_new_crops_is_not_read_again(
    opened: Any, run: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = camera_drift.camera_ends

    def noted(connection: Any, gallery: Any, camera_row: int, **told: Any) -> Any:
        looked.append(camera_row)
        return real(connection, gallery, camera_row, **told)

    monkeypatch.setattr(camera_drift, "camera_ends", noted)

    async def work() -> None:
        async with opened(with_embedder=Readable(), **SETTINGS) as application:
            await store(application, "c1", [vector(1)], [""])
            await store(application, "c2", [vector(2)], [""])
            await application.watching.drift.look()
            assert len(looked) == 2
            await application.watching.drift.look()
            assert len(looked) == 2
            await store(application, "c2", [vector(3)], [""])
            await application.watching.drift.look()
            assert len(looked) == 3

    run(work())
