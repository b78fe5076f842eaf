"""Searches asked of a second model: what they say is what brute force says of both."""

from __future__ import annotations

import asyncio

from service.domain.query import SearchQuery
from service.telemetry import MIRRORED


def total(outcome: str) -> float:
    return MIRRORED.labels("default", outcome)._value.get()


def test_the_overlap_of_shadow_and_live_is_brute_forces(site, run, image_of) -> None:
    async def work() -> None:
        async with site(models={"mirror_share": 1.0}) as it:
            await it.ingest(range(60))
            version = await it.register(2)
            search = it.application.search.search
            before = total("answered")
            await search(SearchQuery(image=image_of(900), top_k=10))
            await it.application.models.lifecycle.stage("", version)
            await it.filled(version)
            mirror = it.application.models.mirror
            await it.until(lambda: bool(mirror._second))
            numbers = range(1000, 1012)
            for number in numbers:
                answer = await search(SearchQuery(image=image_of(number), top_k=20))
                assert answer.model_version == it.versions[1]
            await it.until(lambda: total("answered") == before + len(numbers))
            said = mirror.overlap(it.application._galleries.get(""), it.versions[1], version)
            first = [{crop for crop, _ in it.expected(1, number)[:10]} for number in numbers]
            second = [{crop for crop, _ in it.expected(2, number)[:10]} for number in numbers]
            shared = [len(a & b) / 10 for a, b in zip(first, second, strict=True)]
            assert said.searches == len(numbers)
            assert abs(said.mean - sum(shared) / len(shared)) < 1e-9
            assert 0 < said.mean < 1

    run(work())


def test_a_full_queue_drops_and_counts_and_the_answer_does_not_wait(site, run, image_of) -> None:
    async def work() -> None:
        async with site(models={"mirror_share": 1.0, "mirror_queue": 2}) as it:
            await it.ingest(range(20))
            version = await it.register(2)
            await it.application.models.lifecycle.stage("", version)
            await it.filled(version)
            mirror = it.application.models.mirror
            await it.until(lambda: bool(mirror._second))
            serving = it.application._galleries.get("").models.warm[0]
            stuck = asyncio.Event()

            async def never(*_: object, **__: object) -> None:
                await stuck.wait()

            serving.encoder.embedder.embed_image = never
            dropped = total("dropped")
            for number in range(8):
                query = SearchQuery(image=image_of(2000 + number), top_k=5)
                answer = await asyncio.wait_for(it.application.search.search(query), 120)
                assert len(answer.matches) == 5
                await asyncio.sleep(0)
            assert total("dropped") - dropped >= 5

    run(work())
