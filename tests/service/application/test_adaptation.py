"""Leases and records of adaptation runs, on a clock moved by hand."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import select

from resight.errors import FailedPrecondition, InvalidArgument, NotFound, ResightError
from service.application.ingest import IngestItem
from service.application.run_key import RunKey
from service.catalog.models import metadata
from service.domain.adaptation import Ending, Progress, RunState
from service.domain.crop import Camera

LEASE = 300.0
ENDINGS = [
    Ending(RunState.REFUSED, "GATE", "worse"),
    Ending(RunState.SKIPPED, "TOO_FEW_CROPS", "3 of 500"),
    Ending(RunState.FAILED, "TRAINING", "loss is nan"),
]


def key(started, **changed: str) -> RunKey:
    told = {"gallery": "", "run_id": str(started.run.run_id), "lease_token": started.lease_token}
    return RunKey(**(told | changed))


async def ingest(application, at, numbers) -> None:
    for number in numbers:
        camera = f"c{number % 2 + 1}"
        await application.ingest.submit(IngestItem("", camera, at(number), b"%d" % number))


def reason_of(caught) -> str:
    return caught.value.reason


def test_a_held_lease_is_refused_with_its_holder_and_its_end(opened, run, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            first = await application.adaptation.start("", "gpu-1 (pid 7)")
            assert first.run.state is RunState.RUNNING
            assert first.run.lease_expire_time == clock.now() + timedelta(seconds=LEASE)
            assert first.heartbeat_interval < timedelta(seconds=LEASE / 2)
            clock.pass_seconds(LEASE - 1)
            with pytest.raises(FailedPrecondition) as caught:
                await application.adaptation.start("", "gpu-2")
            assert reason_of(caught) == "LEASE_HELD"
            assert "gpu-1 (pid 7)" in caught.value.message
            assert first.run.lease_expire_time.isoformat(timespec="seconds") in caught.value.message
            assert len((await application.runs.list("")).items) == 1, "the refused one left nothing"

    run(work())


def test_one_of_many_starters_wins(opened, run) -> None:
    async def work() -> None:
        async with opened() as application:
            starts = [application.adaptation.start("", f"host {n}") for n in range(200)]
            answers = await asyncio.gather(*starts, return_exceptions=True)
            won = [answer for answer in answers if not isinstance(answer, BaseException)]
            lost = [answer for answer in answers if isinstance(answer, BaseException)]
            assert len(won) == 1
            assert {error.reason for error in lost} == {"LEASE_HELD"}
            assert all(won[0].run.holder in error.message for error in lost)

    run(work())


def test_each_gallery_has_a_lease_of_its_own(opened, run) -> None:
    async def work() -> None:
        async with opened() as application:
            await application.cameras.create("annex", Camera("c1"))
            first = await application.adaptation.start("", "a")
            await application.adaptation.start("annex", "b")
            with pytest.raises(NotFound):
                await application.adaptation.heartbeat(key(first, gallery="annex"))
            with pytest.raises(NotFound, match="does not exist"):
                await application.adaptation.start("cellar", "c")

    run(work())


def test_whoever_lost_the_lease_has_no_effect_any_more(opened, run, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            adaptation = application.adaptation
            old = await adaptation.start("", "old", timedelta(seconds=10))
            clock.pass_seconds(10)
            new = await adaptation.start("", "new")
            calls = [
                adaptation.heartbeat(key(old)),
                adaptation.report(key(old), {"x": 1}),
                adaptation.finish(key(old), ENDINGS[0]),
            ]
            for call in calls:
                with pytest.raises(FailedPrecondition) as caught:
                    await call
                assert reason_of(caught) == "LEASE_LOST"
                assert "new took it" in caught.value.message
                assert clock.now().isoformat(timespec="seconds") in caught.value.message
            record = await application.runs.get("", str(old.run.run_id))
            assert (record.state, record.reason) == (RunState.ABANDONED, "LEASE_EXPIRED")
            assert record.figures is None
            assert (await adaptation.heartbeat(key(new))).state is RunState.RUNNING

    run(work())


def test_a_heartbeat_extends_by_the_services_clock_and_takes_up_an_idle_lease(
    opened, run, clock
) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            adaptation = application.adaptation
            started = await adaptation.start("", "slow", timedelta(seconds=60))
            clock.pass_seconds(50)
            beaten = await adaptation.heartbeat(key(started), None, Progress("train", 0.5, "2/4"))
            assert beaten.lease_expire_time == clock.now() + timedelta(seconds=60), "as it began"
            assert beaten.progress == Progress("train", 0.5, "2/4")
            clock.pass_seconds(3600)
            assert not adaptation.gauges()["default"].held
            again = await adaptation.heartbeat(key(started), timedelta(seconds=120))
            assert again.lease_expire_time == clock.now() + timedelta(seconds=120)
            assert again.progress.stage == "train", "unset leaves it"
            with pytest.raises(FailedPrecondition, match="slow holds the lease"):
                await adaptation.start("", "other")

    run(work())


@pytest.mark.parametrize("seconds", [0, 0.5, -5, 3601, 1e8])
def test_a_lease_outside_the_bounds_is_refused(opened, run, seconds: float) -> None:
    async def work() -> None:
        async with opened() as application:
            with pytest.raises(InvalidArgument, match="lease_duration"):
                await application.adaptation.start("", "x", timedelta(seconds=seconds))
            started = await application.adaptation.start("", "x")
            with pytest.raises(InvalidArgument, match="lease_duration"):
                await application.adaptation.heartbeat(key(started), timedelta(seconds=seconds))

    run(work())


@pytest.mark.parametrize("holder", ["", "x" * 201, "two\nlines"])
def test_a_holder_nobody_could_read_is_refused(opened, run, holder: str) -> None:
    async def work() -> None:
        async with opened() as application:
            with pytest.raises(InvalidArgument, match="holder"):
                await application.adaptation.start("", holder)

    run(work())


def test_only_the_right_token_counts(opened, run, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            adaptation = application.adaptation
            started = await adaptation.start("", "x")
            for wrong in ("", "guess", started.lease_token + " ", started.lease_token[:-1], "ä"):
                for call in (
                    adaptation.heartbeat(key(started, lease_token=wrong)),
                    adaptation.report(key(started, lease_token=wrong), None),
                    adaptation.finish(key(started, lease_token=wrong), ENDINGS[0]),
                ):
                    with pytest.raises(FailedPrecondition) as caught:
                        await call
                    assert reason_of(caught) == "LEASE_TOKEN_WRONG"
                    assert started.lease_token not in caught.value.message
            with pytest.raises(NotFound):
                await adaptation.heartbeat(key(started, run_id=str(uuid4())))
            with pytest.raises(InvalidArgument, match="run_id"):
                await adaptation.heartbeat(key(started, run_id="7"))
            assert (await adaptation.heartbeat(key(started))).state is RunState.RUNNING

    run(work())


def test_the_token_is_not_in_the_catalog(opened, run, query) -> None:
    async def work() -> str:
        async with opened() as application:
            return (await application.adaptation.start("", "x")).lease_token

    token = run(work())
    tables = {table.name: query(select(table)) for table in metadata.sorted_tables}
    assert tables["adaptation_runs"]
    assert token not in repr(tables)


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.state.value)
def test_an_ending_releases_the_lease_and_keeps_the_window(
    opened, run, at, clock, ending: Ending
) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            adaptation = application.adaptation
            await ingest(application, at, range(5))
            started = await adaptation.start("", "x")
            counts = {c.camera_id: (c.new_crops, c.older_crops) for c in started.cameras}
            assert counts == {"c1": (3, 0), "c2": (2, 0), "c3": (0, 0)}
            ended = await adaptation.finish(key(started), ending)
            assert (ended.state, ended.reason, ended.message) == (
                ending.state, ending.reason, ending.message,
            )  # fmt: skip
            assert ended.end_time == clock.now()
            assert ended.lease_expire_time is None
            assert await adaptation.finish(key(started), ending) == ended, "again changes nothing"
            with pytest.raises(FailedPrecondition) as caught:
                await adaptation.heartbeat(key(started))
            assert reason_of(caught) == "RUN_ENDED"
            again = await adaptation.start("", "y")
            assert [c.new_crops for c in again.cameras] == [3, 2, 0], "nothing was learnt from them"

    run(work())


def test_success_needs_a_candidate(opened, run) -> None:
    async def work() -> None:
        async with opened() as application:
            started = await application.adaptation.start("", "x")
            with pytest.raises(FailedPrecondition) as caught:
                await application.adaptation.finish(
                    key(started), Ending(RunState.SUCCEEDED, "", "")
                )
            assert reason_of(caught) == "MODEL_NOT_REGISTERED"
            assert (await application.adaptation.heartbeat(key(started))).end_time is None

    run(work())


def test_a_report_is_kept_once_and_in_bounds(opened, run) -> None:
    limits = {"max_figures_bytes": 1024, "max_report_crops": 4, "max_run_crops": 6}

    async def work() -> None:
        async with opened(nightly=limits) as application:
            adaptation = application.adaptation
            started = await adaptation.start("", "x")
            ids = [str(uuid4()) for _ in range(7)]
            reported = await adaptation.report(key(started), {"loss": 0.5}, ids[:3], ids[3:4])
            assert (reported.new_crops, reported.replay_crops) == (3, 1)
            again = await adaptation.report(key(started), None, [ids[0], ids[0]], ids[3:4])
            assert (again.new_crops, again.replay_crops) == (3, 1), "each once"
            bad = [
                (None, ids[:5], "max_report_crops"),
                (None, ids[4:7], "max_run_crops"),
                (None, ["x"], "new_crop_ids"),
                ({"text": "x" * 1024}, [], "max_figures_bytes"),
                ({"loss": float("nan")}, [], "not JSON"),
            ]
            for figures, crop_ids, message in bad:
                with pytest.raises(InvalidArgument, match=message):
                    await adaptation.report(key(started), figures, crop_ids)
            record = await application.runs.get("", str(started.run.run_id))
            assert record.figures == {"loss": 0.5}
            assert (record.new_crops, record.replay_crops) == (3, 1), "a refused report adds none"
            page = await application.runs.list_crops("", str(started.run.run_id), 3)
            rest = await application.runs.list_crops(
                "", str(started.run.run_id), 3, page.next_page_token
            )
            listed = [*page.items, *rest.items]
            assert rest.next_page_token == ""
            assert sorted((str(crop_id), replay) for crop_id, replay in listed) == sorted(
                [(ids[0], False), (ids[1], False), (ids[2], False), (ids[3], True)]
            )

    run(work())


def test_runs_are_listed_newest_first(opened, run, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            made = []
            for number in range(5):
                started = await application.adaptation.start("", f"night {number}")
                made.append(str(started.run.run_id))
                await application.adaptation.finish(key(started), ENDINGS[number % 3])
            seen: list[str] = []
            token = ""
            while True:
                page = await application.runs.list("", 2, token)
                seen += [str(run.run_id) for run in page.items]
                token = page.next_page_token
                if not token:
                    break
            assert seen == made[::-1]

    run(work())


def test_a_restart_knows_the_lease(opened, run, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            started = await application.adaptation.start("", "x")
        clock.pass_seconds(LEASE - 10)
        async with opened(clock=clock, cameras=False) as application:
            assert application.adaptation.gauges()["default"].held
            with pytest.raises(FailedPrecondition, match="x holds"):
                await application.adaptation.start("", "y")
            await application.adaptation.heartbeat(key(started))
            clock.pass_seconds(LEASE)
            assert not application.adaptation.gauges()["default"].held
            await application.adaptation.start("", "y")

    run(work())


def test_without_images_there_is_no_night(opened, run) -> None:
    async def work() -> None:
        async with opened(privacy={"store_images": False}) as application:
            with pytest.raises(ResightError, match=r"privacy\.store_images") as caught:
                await application.adaptation.start("", "x")
            assert reason_of(caught) == "IMAGES_NOT_STORED"

    run(work())
