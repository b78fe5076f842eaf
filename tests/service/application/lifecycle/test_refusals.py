"""What a model's life refuses, and by which reason."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import select, update

from resight.errors import FailedPrecondition, InvalidArgument, NotFound
from service.access.key_text import new_key_id, new_text
from service.catalog.models import embeddings, model_fillings
from service.domain.filling import FillingState
from service.domain.model import GateVerdict

OLD = embeddings.alias("old")


async def refused(work, kind, reason: str) -> str:
    with pytest.raises(kind) as caught:
        await work
    assert caught.value.reason == reason
    return caught.value.message


def test_wrong_inputs_of_each_step(site, run) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            live = it.versions[1]
            for step in (
                lambda version, gallery="": lifecycle.stage(gallery, version),
                lambda version, gallery="": lifecycle.promote(gallery, version),
                lambda version, gallery="": lifecycle.retire(gallery, version),
                lambda version, gallery="": lifecycle.pause(gallery, version),
                lambda version, gallery="": lifecycle.resume(gallery, version),
            ):
                await refused(step(""), InvalidArgument, "INVALID_ARGUMENT")
                await refused(step("x" * 129), InvalidArgument, "INVALID_ARGUMENT")
                await refused(step("\0"), InvalidArgument, "INVALID_ARGUMENT")
                await refused(step("0" * 16), NotFound, "MODEL_NOT_FOUND")
                await refused(step(live, "cellar"), NotFound, "GALLERY_NOT_FOUND")
            await refused(lifecycle.rollback("cellar"), NotFound, "GALLERY_NOT_FOUND")
            await refused(lifecycle.rollback(""), FailedPrecondition, "NO_PREVIOUS")
            await refused(lifecycle.stage("", live), FailedPrecondition, "MODEL_STATE")
            await refused(lifecycle.promote("", live), FailedPrecondition, "MODEL_STATE")
            await refused(lifecycle.retire("", live), FailedPrecondition, "MODEL_STATE")
            await refused(lifecycle.pause("", live), FailedPrecondition, "NO_FILLING")
            candidate = await it.register(2)
            await refused(lifecycle.promote("", candidate), FailedPrecondition, "MODEL_STATE")
            await refused(lifecycle.resume("", candidate), FailedPrecondition, "NO_FILLING")
            long = lifecycle.stage("", candidate, reason="x" * 501)
            await refused(long, InvalidArgument, "INVALID_ARGUMENT")
            await lifecycle.stage("", candidate)
            await refused(lifecycle.stage("", candidate), FailedPrecondition, "MODEL_STATE")
            other = await it.register(3)
            await refused(lifecycle.stage("", other), FailedPrecondition, "SHADOW_EXISTS")
            await it.filled(candidate)
            forced = lifecycle.promote("", candidate, force=True)
            await refused(forced, InvalidArgument, "INVALID_ARGUMENT")
            await lifecycle.promote("", candidate)
            await refused(lifecycle.stage("", other), FailedPrecondition, "PREVIOUS_KEPT")
            staged = await lifecycle.stage("", other, retire_previous=True)
            assert staged.retired == live
            await lifecycle.retire("", other)
            await refused(lifecycle.retire("", other), FailedPrecondition, "MODEL_STATE")
            await refused(lifecycle.stage("", other), FailedPrecondition, "MODEL_STATE")
            assert await it.check() == 2

    run(work())


def test_what_the_gate_did_not_pass_needs_force_and_a_reason(site, run, query) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(4))
            version = await it.register(2, gate=GateVerdict())
            await lifecycle.stage("", version)
            await it.filled(version)
            await refused(lifecycle.promote("", version), FailedPrecondition, "GATE_NOT_PASSED")
            assert await it.check() == 1
            await lifecycle.promote("", version, force=True, reason="tried by hand")
            assert await it.check() == 2
            assert query(
                "SELECT kind, actor, reason FROM model_events ORDER BY event_row DESC LIMIT 1"
            ) == [("promote", "caller", "tried by hand")]

    run(work())


def test_a_filling_that_replaced_nothing_is_found_out(site, run, change) -> None:
    """It reports all crops done, and every crop has a vector: the old model's."""

    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            ids = await it.ingest(range(40))
            version = await it.register(2)
            await lifecycle.stage("", version)
            await it.filled(version)
            change(
                update(embeddings)
                .where(embeddings.c.model_row == 2)
                .values(
                    vector=select(OLD.c.vector)
                    .where(
                        OLD.c.model_row == 1,
                        OLD.c.crop_row == embeddings.c.crop_row,
                    )
                    .scalar_subquery()
                )
            )
            told = lifecycle.promote("", version, force=True, allow_missing=True, reason="try")
            message = await refused(told, FailedPrecondition, "VERIFICATION_FAILED")
            assert "copied" in message
            assert any(str(crop) in message for crop in ids)
            assert await it.check() == 1

    run(work())


def test_a_count_that_is_made_up_is_found_out(site, run, change) -> None:
    """The filling says complete, and crops lack vectors."""

    async def work() -> None:
        async with site(models={"fill_block": 4}) as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(20))
            version = await it.register(2)
            await lifecycle.stage("", version)
            await it.filled(version)
            change(
                embeddings.delete().where(embeddings.c.model_row == 2, embeddings.c.crop_row == 7)
            )
            told = lifecycle.promote("", version)
            await refused(told, FailedPrecondition, "INDEX_DIFFERS")
            assert await it.check() == 1

    run(work())


def test_a_paused_filling_rests_until_it_is_resumed(site, run) -> None:
    async def work() -> None:
        async with site(models={"fill_block": 2, "fill_share": 0.02}) as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(40))
            version = await it.register(2)
            await lifecycle.stage("", version)
            paused = await lifecycle.pause("", version)
            assert paused.state is FillingState.PAUSED
            await asyncio.sleep(0.3)
            resting = await lifecycle.filling("", version)
            assert (resting.state, resting.done) == (FillingState.PAUSED, paused.done)
            assert paused.done < 40
            await refused(lifecycle.pause("", version), FailedPrecondition, "NO_FILLING")
            await refused(lifecycle.promote("", version), FailedPrecondition, "FILLING_INCOMPLETE")
        async with site(crops=it.crops) as again:
            again.versions[2] = version
            lifecycle = again.application.models.lifecycle
            await asyncio.sleep(0.2)
            assert (await lifecycle.filling("", version)).done == paused.done, "pauses survive"
            await lifecycle.resume("", version)
            assert (await again.filled(version)).done == 40
            await lifecycle.promote("", version)
            assert await again.check() == 2

    run(work())


def test_another_process_that_fills_is_left_alone(site, run, change) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            await it.ingest(range(10))
            version = await it.register(2)
            await it.application.models._repeating[0].close()
            await lifecycle.stage("", version)
            other, tomorrow = UUID(int=7), datetime.now(UTC) + timedelta(days=1)
            change(update(model_fillings).values(holder=other, expire_time=tomorrow))
            await it.application.models._filler.fill_all()
            assert (await lifecycle.filling("", version)).done == 0
            change(update(model_fillings).values(expire_time=datetime.now(UTC)))
            await it.application.models._filler.fill_all()
            assert (await lifecycle.filling("", version)).done == 10, "its lease has ended"

    run(work())


def test_a_block_that_takes_longer_than_the_lease_is_kept(site, run, query) -> None:
    async def work() -> None:
        async with site(models={"fill_lease_seconds": 1.0}) as it:
            await it.ingest(range(6))
            version = await it.register(2)
            await it.application.models._repeating[0].close()
            await it.application.models.lifecycle.stage("", version)
            filler = it.application.models._filler
            made = filler._reembedding.made
            times: list[int] = []

            async def slow(*arguments: object, **options: object) -> object:
                times.append(query("SELECT expire_time FROM model_fillings")[0][0])
                async with asyncio.timeout(120):
                    while len(times) < 2:
                        await asyncio.sleep(0.1)
                        now = query("SELECT expire_time FROM model_fillings")[0][0]
                        # In microseconds: longer than the lease was.
                        if now - times[0] >= 1_000_000:
                            times.append(now)
                return await made(*arguments, **options)

            filler._reembedding.made = slow
            await filler.fill_all()
            assert (await it.filled(version)).done == 6
            assert len(times) == 2, "extended on the way"

    run(work())


@pytest.mark.parametrize(
    "credential",
    [new_text(new_key_id()), "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJlLW9mLWl0"],
    ids=["key", "token"],
)
def test_a_credential_given_as_the_reason_is_written_nowhere(
    site, run, caplog, query, credential
) -> None:
    async def work() -> None:
        async with site() as it:
            lifecycle = it.application.models.lifecycle
            candidate = await it.register(2)
            with caplog.at_level("INFO"):
                await lifecycle.stage("", candidate, reason=f"with {credential}, case 7")

    run(work())
    hidden = "with (credential), case 7"
    assert query("SELECT reason FROM model_events WHERE kind = 'stage'") == [(hidden,)]
    (line,) = [each.getMessage() for each in caplog.records if "stage by" in each.getMessage()]
    assert line.endswith(hidden)
    assert credential not in caplog.text
