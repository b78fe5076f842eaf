"""A model's life, by what is found before and after each step."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select

from resight.errors import FailedPrecondition
from service.application import encoders, ingest
from service.catalog.models import embeddings
from service.domain.filling import FailureReason


def states(listed) -> dict[str, str]:
    return {model.model_version: model.state.value for model in listed.items}


def test_a_candidate_becomes_the_model_that_answers(site, run, query, monkeypatch) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(30))
            assert await it.check() == 1
            version = await it.register(2)
            staged = await lifecycle.stage("", version)
            assert (staged.model_version, staged.retired) == (version, "")
            filling = await it.filled(version)
            assert (filling.total, filling.done, filling.failed) == (30, 30, 0)
            assert await it.check() == 1, "the shadow answers nobody"
            live = it.application._galleries.get("").serving.index
            assert (len(live), live.tombstones) == (30, 0), "filling leaves the live index alone"
            await it.ingest(range(30, 40))
            promoted = await lifecycle.promote("", version)
            assert (promoted.previous_version, promoted.unsearchable) == (it.versions[1], 0)
            assert promoted.checked.sampled > 0
            assert promoted.checked.vectors == 40
            assert await it.check() == 2
            await it.ingest(range(40, 45))
            assert await it.check() == 2
            assert states(await it.application.registry.list("")) == {
                it.versions[1]: "previous",
                version: "live",
            }
            rolled = await lifecycle.rollback("")
            assert (rolled.model_version, rolled.previous_version) == (it.versions[1], version)
            assert await it.check() == 1, "the model before got every crop, too"
            await lifecycle.rollback("")
            assert await it.check() == 2
            await lifecycle.retire("", it.versions[1])
            assert await it.check() == 2
            other = await it.register(3)
            await lifecycle.stage("", other)
            monkeypatch.setattr(encoders, "UNUSED_SECONDS", 0.0)
            loaded = it.application.models._encoders.loaded
            await it.application.models.lineup.end_unused()
            assert other in loaded
            await lifecycle.retire("", other)
            await it.application.models.lineup.end_unused()
            assert set(loaded) == {it.versions[1], version}, "the served one stays"
            await it.ingest(range(45, 50))
            await it.until(lambda: len(query(select(embeddings.c.model_row).distinct())) == 1)
            with pytest.raises(FailedPrecondition) as caught:
                await lifecycle.rollback("")
            assert caught.value.reason == "NO_PREVIOUS"
        # Another bundle on the command line decides nothing.
        async with site(crops=it.crops) as again:
            again.versions[2] = version
            assert await again.check() == 2
            await again.ingest(range(50, 55))
            assert await again.check() == 2

    run(work())


def test_both_models_are_there_again_after_a_restart(site, run) -> None:
    async def work() -> None:
        async with site() as it:
            await it.ingest(range(12))
            version = await it.promoted(2)
            first = it.versions[1]
        async with site(crops=it.crops) as again:
            again.versions[2] = version
            assert await again.check() == 2
            await again.ingest(range(12, 20))
            await again.application.models.lifecycle.rollback("")
            assert again.application._galleries.get("").serving.version == first
            assert await again.check() == 1

    run(work())


def test_the_first_model_is_kept_whatever_bundle_is_served_later(site, run, tmp_path) -> None:
    async def work() -> None:
        async with site(bundle=tmp_path / "served-1.tar") as it:
            await it.ingest(range(12))
            version = await it.promoted(2)
            first = it.versions[1]
        async with site(seed=2, crops=it.crops, bundle=tmp_path / "served-2.tar") as again:
            assert again.versions == {2: version}
            again.versions[1] = first
            assert await again.check() == 2
            await again.ingest(range(12, 20))
            await again.application.models.lifecycle.rollback("")
            assert await again.check() == 1

    run(work())


def test_crops_wait_for_a_model_that_does_not_run_here(site, run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ingest, "MODELS_SECONDS", 0.3)

    async def work() -> None:
        async with site() as it:
            await it.ingest(range(5))
            version = await it.promoted(2)
            first = it.versions[1]
        # The previous model has no archive, and another bundle is served.
        async with site(seed=2, crops=it.crops) as again:
            assert await again.check() == 2, "searches go on"
            result = await again.send(5)
            assert (result.outcome.value, result.reason) == ("retry", "MODEL_NOT_LOADED")
            await again.application.models.lifecycle.retire("", first)
            await again.ingest(range(5, 8))
            assert await again.check() == 2
            assert again.versions[2] == version

    run(work())


def test_the_archive_comes_from_the_blob_store(site, run, tmp_path) -> None:
    async def work() -> None:
        async with site() as it:
            await it.ingest(range(5))
            version = await it.promoted(2)
            await it.application.models.lifecycle.retire("", it.versions[1])
        (archive,) = (tmp_path / "data" / "bundles" / "default").glob("*.tar")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        archive.unlink()
        async with site(crops=it.crops) as again:
            again.versions[2] = version
            assert await again.check() == 2
            assert hashlib.sha256(archive.read_bytes()).hexdigest() == digest
        archive.unlink()
        copy = tmp_path / "blobs" / ".bundles" / "default" / f"{digest}.tar"
        whole = copy.read_bytes()
        copy.write_bytes(whole[:-1] + b"x")
        with pytest.raises(FailedPrecondition, match=r"damaged.*--bundle"):
            async with site():
                pass
        copy.unlink()
        with pytest.raises(FailedPrecondition, match=r"neither.*blob store.*--bundle"):
            async with site():
                pass

    run(work())


def test_crops_that_cannot_be_embedded_block_the_promotion(site, run, tmp_path) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            ids = await it.ingest(range(20))
            lost, broken = ids[3], ids[11]
            it.stored_image(tmp_path / "blobs", 3).unlink()
            target = it.stored_image(tmp_path / "blobs", 11)
            whole = target.read_bytes()
            target.write_bytes(b"no image")
            version = await it.register(2)
            await lifecycle.stage("", version)
            filling = await it.filled(version)
            assert (filling.done, filling.failed) == (18, 2)
            assert {item.crop_id: item.reason for item in filling.failures} == {
                lost: FailureReason.IMAGE_LOST,
                broken: FailureReason.UNDECODABLE,
            }
            with pytest.raises(FailedPrecondition) as caught:
                await lifecycle.promote("", version)
            assert caught.value.reason == "CROPS_MISSING"
            target.write_bytes(whole)
            await lifecycle.resume("", version)
            filling = await it.filled(version)
            assert (filling.done, filling.failed) == (19, 1)
            promoted = await lifecycle.promote("", version, allow_missing=True)
            assert promoted.unsearchable == 1
            it.crops.pop(lost)
            assert await it.check() == 2

    run(work())
