"""Without images and without a map: old crops answer with the old model, new ones with the new."""

from __future__ import annotations

import hashlib
import math

import pytest

from resight.bundle.attachments import Attachments, attach
from resight.errors import FailedPrecondition
from resight.v1.bundle_pb2 import ScoreCalibration
from service.application.registry import Upload
from service.domain.filling import FillingSource
from service.domain.groups import GroupBy
from service.domain.query import SearchQuery
from service.domain.query_embedding import QueryEmbedding

PRIVATE = {"privacy": {"store_images": False}}
LINES = {1: (4.0, -2.0), 2: (9.0, -3.0)}


@pytest.fixture
def calibrated(make_bundle, tmp_path):
    """``calibrated(seed, run_id)``: an archive whose calibration is the seed's line."""

    def made(seed: int, run_id: str = "r") -> bytes:
        path = tmp_path / f"calibrated-{seed}-{run_id}.tar"
        path.write_bytes(make_bundle(seed=seed, run_id=run_id))
        slope, intercept = LINES[seed]
        line = ScoreCalibration(
            form=ScoreCalibration.FORM_LOGISTIC, slope=slope, intercept=intercept, prior=0.1
        )
        attach(path, Attachments(calibration=line))
        return path.read_bytes()

    return made


def probability(seed: int, score: float) -> float:
    slope, intercept = LINES[seed]
    return 1 / (1 + math.exp(-(slope * score + intercept)))


async def staged(it, data: bytes, seed: int, gate) -> str:
    async def whole():
        yield data

    upload = Upload("", hashlib.sha256(data).digest(), len(data), gate=gate)
    version = (await it.application.registry.register(upload, whole())).model_version
    it.versions[seed] = version
    found = await it.application.models.lifecycle.stage("", version)
    assert found.source is FillingSource.NONE
    return version


def ranked(it, vector_of, number: int, old: int) -> list[tuple[float, int, int]]:
    """Probability, image and seed of the model, best first, by brute force."""
    found = []
    for own in it.crops.values():
        seed = 1 if own < old else 2
        score = float(vector_of(seed, own) @ vector_of(seed, number))
        found.append((probability(seed, score), own, seed))
    return sorted(found, reverse=True)


def test_each_crop_answers_with_its_own_model(
    site, run, calibrated, passed, tmp_path, image_of, vector_of
) -> None:
    (tmp_path / "served-1.tar").write_bytes(calibrated(1, "served"))

    async def work() -> None:
        async with site(bundle=tmp_path / "served-1.tar", **PRIVATE) as it:
            search, lifecycle = it.application.search.search, it.application.models.lifecycle
            old_ids = await it.ingest(range(30))
            version = await staged(it, calibrated(2), 2, passed)
            new_ids = await it.ingest(range(30, 50))
            done = await lifecycle.promote("", version)
            assert (done.unsearchable, done.dual_served) == (0, 30)

            async def checked(again, number: int, top_k: int) -> None:
                answer = await again.application.search.search(
                    SearchQuery(image=image_of(number), top_k=top_k)
                )
                expected = ranked(again, vector_of, number, 30)[:top_k]
                assert answer.model_version == version
                assert [again.crops[match.crop.crop_id] for match in answer.matches] == [
                    own for _, own, _ in expected
                ]
                for match, (likely, _, seed) in zip(answer.matches, expected, strict=True):
                    assert match.model_version == again.versions[seed]
                    assert abs(match.probability - likely) < 1e-4

            for number in (500, 501, 502):
                await checked(it, number, 10)
                await checked(it, number, 1000)
            likely = ranked(it, vector_of, 503, 30)
            bound = (likely[19][0] + likely[20][0]) / 2
            answer = await search(
                SearchQuery(image=image_of(503), top_k=100, min_probability=bound)
            )
            assert len(answer.matches) == 20
            batch = [SearchQuery(image=image_of(number), top_k=10) for number in (500, 501)]
            for number, one in zip(
                (500, 501), await it.application.search_batch.search(batch), strict=True
            ):
                first = [own for _, own, _ in ranked(it, vector_of, number, 30)[:10]]
                assert [it.crops[match.crop.crop_id] for match in one.matches] == first
            # A stored crop asks with the vectors it has.
            own = await search(SearchQuery(crop_id=str(new_ids[0]), top_k=100))
            assert len(own.matches) == 49
            own = await search(SearchQuery(crop_id=str(old_ids[0]), top_k=100))
            assert {match.model_version for match in own.matches} == {it.versions[1]}
            for refused in (
                {"min_score": 0.1},
                {"group_by": GroupBy.CAMERA},
                {"embedding": QueryEmbedding((1.0, 0.0, 0.0, 0.0), version)},
            ):
                asked = {"image": image_of(1)} if "embedding" not in refused else {}
                with pytest.raises(FailedPrecondition) as caught:
                    await search(SearchQuery(**asked, **refused))
                assert caught.value.reason == "DUAL_SERVED"
            with pytest.raises(FailedPrecondition) as caught:
                await lifecycle.retire("", it.versions[1])
            assert caught.value.reason == "DUAL_SERVED"
        async with site(crops=it.crops, bundle=tmp_path / "served-1.tar", **PRIVATE) as again:
            again.versions[2] = version
            await checked(again, 504, 1000)
            await again.application.models.lifecycle.rollback("")
            assert await again.check() == 1, "the old model has a vector of every crop"
            await again.application.models.lifecycle.rollback("")
            await checked(again, 505, 1000)
            for crop in old_ids:
                await again.application.crops.delete("", str(crop))
                again.crops.pop(crop)
            await again.application.models.lifecycle.retire("", again.versions[1])
            assert await again.check() == 2, "and then there is one model"

    run(work())


def test_without_calibrations_it_is_refused(site, run, calibrated, passed) -> None:
    async def work() -> None:
        async with site(**PRIVATE) as it:
            await it.ingest(range(5))
            with pytest.raises(FailedPrecondition, match="calibration in both") as caught:
                await staged(it, calibrated(2), 2, passed)
            assert caught.value.reason == "NO_VECTOR_MAP"

    run(work())
