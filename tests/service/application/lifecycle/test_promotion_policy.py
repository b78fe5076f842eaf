"""What the policy does by itself, and what it leaves alone."""

from __future__ import annotations

import asyncio

import pytest

from resight.errors import FailedPrecondition, ResightError
from service.catalog import lifecycle_reads
from service.domain.model import GateOutcome, GateVerdict
from service.domain.query import SearchQuery

EAGER = {"promotion": "gate", "min_judged": 20, "mirror_share": 1.0, "min_overlap": 0.0}
LAST = (
    "SELECT kind, actor FROM model_events WHERE kind IN ('promote', 'rollback') "
    "ORDER BY event_row DESC LIMIT 1"
)


def passed_against(version: str) -> GateVerdict:
    return GateVerdict(GateOutcome.PASSED, 0.3, (), {"live": version, "baseline": version})


def live(it) -> str:
    return it.application._galleries.get("").serving.version


def test_what_the_gate_passed_is_promoted_by_itself(site, run, query) -> None:
    async def work() -> None:
        async with site(models=EAGER) as it:
            await it.ingest(range(20))
            await it.register(3, gate=GateVerdict())
            other = await it.register(4, gate=passed_against("another model"))
            await asyncio.sleep(0.4)
            assert live(it) == it.versions[1], "the gate did not pass them against what is live"
            version = await it.register(2, gate=passed_against(it.versions[1]))
            await it.until(lambda: live(it) == version)
            assert query(LAST) == [("promote", "policy")]
            assert await it.check() == 2
            assert (await it.application.registry.get("", other))[0].state.value == "candidate"

    run(work())


def test_by_hand_means_by_hand(site, run) -> None:
    async def work() -> None:
        async with site() as it:
            await it.ingest(range(5))
            await it.register(2, gate=passed_against(it.versions[1]))
            await asyncio.sleep(0.4)
            models = (await it.application.registry.list("")).items
            assert sorted(model.state.value for model in models) == ["candidate", "live"]

    run(work())


def test_an_encoder_that_fails_is_rolled_back(site, run, query) -> None:
    async def work() -> None:
        async with site(models=EAGER) as it:
            await it.ingest(range(20))
            version = await it.register(2, gate=passed_against(it.versions[1]))
            await it.until(lambda: live(it) == version)
            await asyncio.sleep(0.2)
            counted = it.application._galleries.get("").serving.encoder.embedder

            async def broken(*_: object, **__: object) -> None:
                raise ResightError("it broke", reason="ENCODER_FAILED")

            counted._embedder.embed_image = broken
            for number in range(25):
                await it.send(100 + number)
            await it.until(lambda: live(it) == it.versions[1])
            assert query(LAST) == [("rollback", "policy")]
            await asyncio.sleep(0.3)
            assert live(it) == it.versions[1], "and stays so"

    run(work())


def test_two_replicas_that_judge_alike_roll_back_once(site, run, query, monkeypatch) -> None:
    async def work() -> None:
        async with site(models=EAGER) as it:
            await it.ingest(range(20))
            version = await it.register(2, gate=passed_against(it.versions[1]))
            await it.until(lambda: live(it) == version)
            lifecycle, row = it.application.models.lifecycle, it.application._galleries.get("").row
            fed = it.application._catalog.read_now(lifecycle_reads.fed_models, row)
            event = it.application._catalog.read_now(lifecycle_reads.last_event, row)
            policy = it.application.models._policy
            monkeypatch.setattr(policy, "_counted", lambda *_: (0, 100))
            judged = policy._judged(it.application._galleries.get(""), fed, event)
            # What the other replica's does between this one's look and its decision.
            await lifecycle.rollback("", leaving=version)
            with pytest.raises(FailedPrecondition) as caught:
                await judged
            assert caught.value.reason == "MODEL_STATE"
            assert live(it) == it.versions[1]

    run(work())


@pytest.mark.parametrize(("bound", "stays"), [(1.0, False), (0.0, True)])
def test_answers_too_different_are_rolled_back(site, run, query, image_of, bound, stays) -> None:
    async def work() -> None:
        async with site(models=EAGER | {"min_overlap": bound}) as it:
            await it.ingest(range(60))
            version = await it.register(2, gate=passed_against(it.versions[1]))
            await it.until(lambda: live(it) == version)
            mirror = it.application.models.mirror
            await it.until(lambda: [role for _, role in mirror._second.values()] == ["previous"])
            for number in range(30):
                query_image = SearchQuery(image=image_of(3000 + number), top_k=10)
                await it.application.search.search(query_image)
            if stays:
                await asyncio.sleep(0.5)
                assert live(it) == version
            else:
                await it.until(lambda: live(it) == it.versions[1])
                assert query(LAST) == [("rollback", "policy")]

    run(work())


def test_a_promotion_by_hand_is_not_undone(site, run, image_of) -> None:
    async def work() -> None:
        async with site(models=EAGER | {"min_overlap": 1.0}) as it:
            await it.ingest(range(40))
            version = await it.register(2, gate=GateVerdict())
            lifecycle = it.application.models.lifecycle
            await lifecycle.stage("", version)
            await it.filled(version)
            await lifecycle.promote("", version, force=True, reason="by hand")
            for number in range(40):
                await it.application.search.search(
                    SearchQuery(image=image_of(3000 + number), top_k=10)
                )
            await asyncio.sleep(0.5)
            assert live(it) == version

    run(work())
