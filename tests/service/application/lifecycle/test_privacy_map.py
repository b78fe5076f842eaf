"""Without images old vectors are carried over by the bundle's map, or the model is not staged."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sqlalchemy import update

from resight.bundle.attachments import Attachments, attach
from resight.bundle.vector_map import VectorMap
from resight.errors import FailedPrecondition
from resight.v1.bundle_pb2 import VectorMap as Described
from service.application.registry import Upload
from service.catalog.models import embeddings
from service.domain.filling import FillingSource
from service.domain.query import SearchQuery

PRIVATE = {"privacy": {"store_images": False}}


@pytest.fixture
def mapped(make_bundle, tmp_path):
    """``mapped(seed, old)``: an archive whose bundle maps the vectors of ``old``; and the map."""

    def made(seed: int, old: str) -> tuple[bytes, VectorMap]:
        rng = np.random.default_rng(7)
        matrix = rng.standard_normal((4, 4)).astype(np.float32)
        mapping = VectorMap(matrix, rng.standard_normal(4).astype(np.float32))
        path = tmp_path / "mapped.tar"
        path.write_bytes(make_bundle(seed=seed))
        told = Described(path="maps/old.f32", from_version=old, from_dimension=4, pairs=100)
        attach(path, Attachments(files={"maps/old.f32": mapping.to_bytes()}, vector_maps=[told]))
        return path.read_bytes(), mapping

    return made


async def registered(it, data: bytes, seed: int, gate) -> str:
    async def whole():
        yield data

    upload = Upload("", hashlib.sha256(data).digest(), len(data), gate=gate)
    model = await it.application.registry.register(upload, whole())
    it.versions[seed] = model.model_version
    return model.model_version


def test_old_vectors_are_carried_over_and_new_crops_embedded(
    site, run, mapped, passed, image_of, vector_of, change
) -> None:
    async def work() -> None:
        async with site(**PRIVATE) as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(20))
            data, mapping = mapped(2, it.versions[1])
            version = await registered(it, data, 2, passed)
            staged = await lifecycle.stage("", version)
            assert staged.source is FillingSource.MAP
            filling = await it.filled(version)
            assert (filling.source, filling.done, filling.failed) == (FillingSource.MAP, 20, 0)
            await it.ingest(range(20, 30))
            promoted = await lifecycle.promote("", version)
            assert promoted.checked.sampled > 0
            answer = await it.application.search.search(SearchQuery(image=image_of(500), top_k=100))
            assert answer.model_version == version
            assert len(answer.matches) == 30
            query = vector_of(2, 500)
            for match in answer.matches:
                number = it.crops[match.crop.crop_id]
                if number < 20:
                    old = vector_of(1, number)
                    carried = old @ mapping.matrix + mapping.offset
                    expected = carried / np.linalg.norm(carried)
                else:
                    expected = vector_of(2, number)
                assert abs(match.score - float(expected @ query)) < 1e-4

    run(work())


def test_what_was_not_mapped_is_found_out(site, run, mapped, passed, change) -> None:
    async def work() -> None:
        async with site(**PRIVATE) as it:
            await it.ingest(range(20))
            data, _ = mapped(2, it.versions[1])
            version = await registered(it, data, 2, passed)
            await it.application.models.lifecycle.stage("", version)
            await it.filled(version)
            other = np.array([1, 0, 0, 0], "<f4").tobytes()
            change(update(embeddings).where(embeddings.c.model_row == 2).values(vector=other))
            with pytest.raises(FailedPrecondition) as caught:
                await it.application.models.lifecycle.promote("", version)
            assert caught.value.reason == "VERIFICATION_FAILED"

    run(work())


def test_a_bundle_without_a_map_is_not_staged(site, run) -> None:
    async def work() -> None:
        async with site(**PRIVATE) as it:
            await it.ingest(range(5))
            version = await it.register(2)
            with pytest.raises(FailedPrecondition, match="store_images") as caught:
                await it.application.models.lifecycle.stage("", version)
            assert caught.value.reason == "NO_VECTOR_MAP"
            assert await it.check() == 1

    run(work())
