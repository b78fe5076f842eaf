"""What the service has no longer goes from the night's folder, too."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest

from adapt.nightly.erased import drop_erased, drop_stale_report
from adapt.nightly.lease import Lease
from adapt.nightly.pull import Pull, PulledCrop
from adapt.nightly.state import NightState
from resight.v1 import adaptation_service_pb2 as messages


class Service:
    """Knows which crops there are."""

    def __init__(self, there: set[str]) -> None:
        self.there = there
        self.asked: list[int] = []

    def CheckAdaptationCrops(self, request: Any, timeout: float) -> Any:  # noqa: N802
        assert timeout > 0
        assert (request.gallery, request.run_id, request.lease_token) == ("yard", "r", "t")
        self.asked.append(len(request.crop_ids))
        gone = [each for each in request.crop_ids if each not in self.there]
        return messages.CheckAdaptationCropsResponse(missing_crop_ids=gone)


def lease_of(service: Service) -> Lease:
    run = messages.AdaptationRun(run_id="r")
    started = messages.StartAdaptationRunResponse(run=run, lease_token="t")  # noqa: S106
    return Lease(cast(Any, service), "yard", started, patience=1.0)


@pytest.fixture
def pull(tmp_path: Path) -> Pull:
    folder = tmp_path / "crops"
    folder.mkdir()
    crops = []
    for number in range(2500):
        crop_id = str(uuid4())
        path = folder / f"{crop_id}.jpg"
        path.write_bytes(b"person %d" % number)
        crops.append(PulledCrop(crop_id, path, number % 2 == 0, (path.name,)))
    unused = cast(Any, SimpleNamespace())
    return Pull(unused, unused, folder, crops=crops)


def test_no_byte_of_an_erased_crop_is_left(pull: Pull, tmp_path: Path) -> None:
    before = list(pull.crops)
    gone = {before[number].crop_id for number in (0, 7, 999, 1000, 2499)}
    cache = tmp_path / "run" / "cache" / "key"
    cache.mkdir(parents=True)
    (cache / "pixels.npy").write_bytes(b"person 7 decoded")
    service = Service({crop.crop_id for crop in before} - gone)
    assert drop_erased(pull, lease_of(service), cache=cache.parent) == 5
    assert {crop.crop_id for crop in pull.crops} == service.there
    assert sum(service.asked) == 2500
    left = b"\n".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for number in (0, 7, 999, 1000, 2499):
        assert b"person %d\n" % number not in left + b"\n"
        assert before[number].crop_id not in {path.stem for path in tmp_path.rglob("*.jpg")}
    assert not cache.exists()
    assert drop_erased(pull, lease_of(service), cache=cache.parent) == 0


def test_a_cache_is_kept_while_nothing_is_gone(pull: Pull, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    service = Service({crop.crop_id for crop in pull.crops})
    assert drop_erased(pull, lease_of(service), cache=cache) == 0
    assert cache.exists()
    assert len(list(pull.folder.iterdir())) == 2500


def test_a_report_goes_with_any_of_its_crops(tmp_path: Path) -> None:
    state = NightState(tmp_path)
    ids = [str(uuid4()) for _ in range(3)]
    service = Service({*ids})

    def reported() -> bool:
        return state.report.exists()

    state.will_report(ids)
    state.report.write_text("<img>")
    assert drop_stale_report(state, lease_of(service)) == 0
    assert reported()
    service.there.discard(ids[1])
    assert drop_stale_report(state, lease_of(service)) == 1
    assert list(tmp_path.iterdir()) == []
    # Of a version that did not write down its crops; and one that was interrupted.
    state.report.write_text("<img>")
    (tmp_path / "report.html.partial").write_text("<img>")
    assert drop_stale_report(state, lease_of(service)) == 0
    assert list(tmp_path.iterdir()) == []
    state.will_report([])
    state.report.write_text("no image in it")
    assert drop_stale_report(state, lease_of(Service(set()))) == 0
    assert reported()
