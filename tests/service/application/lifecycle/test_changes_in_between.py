"""What was begun under other models than those it ends under."""

from __future__ import annotations

import pytest

from service.application.ingest import Outcome
from service.domain.query import SearchQuery


def test_a_crop_embedded_for_the_models_before_is_embedded_again(
    site, run, monkeypatch, query
) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(5))
            version = await it.register(2)
            embedder = it.application._galleries.get("").serving.encoder.embedder
            embed, calls = embedder.embed_image, []

            async def staged_meanwhile(*arguments: object, **options: object) -> object:
                vector = await embed(*arguments, **options)
                calls.append(vector)
                if len(calls) == 1:
                    await lifecycle.stage("", version)
                return vector

            monkeypatch.setattr(embedder, "embed_image", staged_meanwhile)
            result = await it.send(5)
            assert result.outcome is Outcome.ACCEPTED
            assert len(calls) == 2
            await it.filled(version)
            assert query("SELECT count(*) FROM embeddings GROUP BY model_row") == [(6,), (6,)]
            await lifecycle.promote("", version)
            assert await it.check() == 2

    run(work())


def test_a_search_ends_under_the_model_that_it_began_under(
    site, run, monkeypatch, image_of, vector_of
) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(20))
            version = await it.register(2)
            await lifecycle.stage("", version)
            await it.filled(version)
            embedder = it.application._galleries.get("").serving.encoder.embedder
            embed = embedder.embed_image

            async def promoted_meanwhile(*arguments: object, **options: object) -> object:
                vector = await embed(*arguments, **options)
                await lifecycle.promote("", version)
                return vector

            monkeypatch.setattr(embedder, "embed_image", promoted_meanwhile)
            answer = await it.application.search.search(SearchQuery(image=image_of(700), top_k=100))
            assert answer.model_version == it.versions[1]
            assert len(answer.matches) == 20
            for match in answer.matches:
                own = vector_of(1, it.crops[match.crop.crop_id])
                assert abs(match.score - float(own @ vector_of(1, 700))) < 1e-4
            monkeypatch.undo()
            assert await it.check() == 2

    run(work())


@pytest.mark.parametrize("keep", [True, False])
def test_the_archive_of_a_retired_model_is_removed_unless_kept(site, run, tmp_path, keep) -> None:
    async def work() -> None:
        async with site(models={"keep_retired": keep}) as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(3))
            version = await it.register(2)
            places = [tmp_path / "data" / "bundles", tmp_path / "blobs" / ".bundles"]

            def archives() -> int:
                return sum(len(list(place.rglob("*.tar"))) for place in places)

            assert archives() == 2
            await lifecycle.stage("", version)
            await it.filled(version)
            await lifecycle.retire("", version)
            removal = it.application.models._removal
            await removal.remove_all()
            assert archives() == (2 if keep else 0)
            model, manifest = await it.application.registry.get("", version)
            assert model.state.value == "retired"
            assert (model.bundle_sha256 != b"") is keep
            assert manifest is not None, "what was registered stays"

    run(work())
