"""Candidates: uploaded whole, verified, fenced by the lease, or nothing is kept."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from resight.bundle import open_bundle
from resight.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    RequestTooSlow,
    ResourceExhausted,
    Unauthenticated,
)
from resight.v1.bundle_pb2 import BundleManifest
from service import call
from service.application import archive_upload, registry
from service.application.registry import Upload
from service.call import Call
from service.domain.adaptation import Ending, RunState
from service.domain.model import GateOutcome, GateVerdict, ModelState
from service.domain.principal import LOCAL
from service.telemetry import ADAPTATION_LAST_SUCCESS, REGISTRY

PASSED = GateVerdict(GateOutcome.PASSED, 0.7, ("stable clusters",), {"stability": 0.9})


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def announced(data: bytes, **changed) -> Upload:
    told = {"gallery": "", "sha256": hashlib.sha256(data).digest(), "size_bytes": len(data)}
    return Upload(**(told | {"gate": PASSED} | changed))


def by_run(started) -> dict[str, str]:
    return {"run_id": str(started.run.run_id), "lease_token": started.lease_token}


def last_success() -> float | None:
    name = "resight_adaptation_last_success_timestamp_seconds"
    return REGISTRY.get_sample_value(name, {"gallery": "default"})


def archives(tmp_path: Path) -> list[Path]:
    """Every file below the bundles' folder."""
    return [path for path in (tmp_path / "data" / "bundles").rglob("*") if path.is_file()]


def test_a_candidate_is_stored_and_listed(opened, run, make_bundle, tmp_path, clock) -> None:
    data = make_bundle(parent="hash-1")

    async def work() -> None:
        async with opened(clock=clock) as application:
            started = await application.adaptation.start("", "x")
            upload = announced(data, **by_run(started))
            model = await application.registry.register(upload, pieces(data))
            assert model.state is ModelState.CANDIDATE
            assert (model.parent_version, model.method) == ("hash-1", "test")
            assert model.run_id == started.run.run_id
            assert model.gate == PASSED
            assert model.create_time == clock.now()
            (stored,) = archives(tmp_path)
            assert stored.read_bytes() == data
            assert os.stat(stored).st_mode & 0o077 == 0
            opened_again = open_bundle(stored)
            assert (model.model_version, model.dimension) == (
                opened_again.model_version, opened_again.dimension,
            )  # fmt: skip
            found, manifest = await application.registry.get("", model.model_version)
            assert found == model
            assert BundleManifest.FromString(manifest) == opened_again.manifest
            live, nothing = await application.registry.get("", "hash-1")
            assert (live.state, nothing, live.bundle_sha256) == (ModelState.LIVE, None, b"")
            listed = await application.registry.list("")
            assert [item.model_version for item in listed.items] == [
                model.model_version, "hash-1",
            ]  # fmt: skip
            assert listed.items[0].gate.report is None, "listings are small"
            assert listed.items[0].gate.reasons == ("stable clusters",)
            first = await application.registry.list("", 1)
            second = await application.registry.list("", 1, first.next_page_token)
            assert [*first.items, *second.items] == list(listed.items)
            ended = await application.adaptation.finish(
                registry.RunKey("", **by_run(started)), Ending(RunState.SUCCEEDED, "", "")
            )
            assert ended.model_version == model.model_version
            assert last_success() == clock.now().timestamp()
            ADAPTATION_LAST_SUCCESS.clear()
        async with opened(clock=clock, cameras=False) as application:
            assert archives(tmp_path) == [stored]
            assert (await application.registry.get("", model.model_version))[0] == model
            await application.watching.runs.look()
            assert last_success() == clock.now().timestamp()
            await application.adaptation.start("", "the next night")

    run(work())


def test_a_bundle_that_is_not_what_was_announced_leaves_nothing(
    opened, run, make_bundle, tmp_path
) -> None:
    data = make_bundle()
    middle = data.index(b"encoder.onnx") + 2000
    flipped = bytearray(data)
    flipped[middle] ^= 1
    junk = b"not a tar" * 1000

    async def work() -> None:
        async with opened() as application:
            register = application.registry.register
            for error, reason, upload, sent in (
                (InvalidArgument, "ARCHIVE_DIFFERS", announced(data), bytes(flipped)),
                (InvalidArgument, "ARCHIVE_DIFFERS", announced(data), data[:-1]),
                (InvalidArgument, "INVALID_ARGUMENT", announced(data), data + b"x"),
                (InvalidArgument, "ARCHIVE_DIFFERS", announced(data), b""),
                (FailedPrecondition, "BUNDLE_REFUSED", announced(bytes(flipped)), bytes(flipped)),
                (FailedPrecondition, "BUNDLE_REFUSED", announced(junk), junk),
            ):
                with pytest.raises(error) as caught:
                    await register(upload, pieces(sent))
                assert caught.value.reason == reason
                assert archives(tmp_path) == []
            assert len((await application.registry.list("")).items) == 1, "the live one alone"

    run(work())


def test_a_bad_announcement_is_refused_before_a_byte_is_read(opened, run, make_bundle) -> None:
    data = make_bundle()

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    async def work() -> None:
        async with opened(models={"max_bundle_bytes": 4096}) as application:
            small = {"size_bytes": 4096}
            for error, match, changed in (
                (InvalidArgument, "sha256", small | {"sha256": b"x"}),
                (InvalidArgument, "max_bundle_bytes", {"size_bytes": 4097}),
                (InvalidArgument, "size_bytes", {"size_bytes": 0}),
                (InvalidArgument, "score", small | {"gate": GateVerdict(score=float("nan"))}),
                (
                    InvalidArgument,
                    "max_gate_bytes",
                    small | {"gate": GateVerdict(report={"x": "y" * 300_000})},
                ),
                (
                    FailedPrecondition,
                    "collapsed",
                    small | {"gate": GateVerdict(GateOutcome.REFUSED, 0.0, ("collapsed",))},
                ),
                (NotFound, "does not exist", small | {"gallery": "cellar"}),
                (NotFound, "run", small | {"run_id": str(UUID(int=1)), "lease_token": "x"}),
            ):
                with pytest.raises(error, match=match):
                    await application.registry.register(announced(data, **changed), unread())

    run(work())


def test_a_night_that_lost_its_lease_registers_nothing(
    opened, run, make_bundle, tmp_path, clock
) -> None:
    data = make_bundle()

    async def work() -> None:
        async with opened(clock=clock) as application:
            old = await application.adaptation.start("", "old", timedelta(seconds=5))

            async def overtaken() -> AsyncIterator[bytes]:
                yield data[:1000]
                clock.pass_seconds(6)
                await application.adaptation.start("", "new")
                yield data[1000:]

            with pytest.raises(FailedPrecondition) as caught:
                await application.registry.register(announced(data, **by_run(old)), overtaken())
            assert caught.value.reason == "LEASE_LOST"
            assert archives(tmp_path) == []
            assert len((await application.registry.list("")).items) == 1

    run(work())


def test_the_same_encoder_again_takes_its_own_place(opened, run, make_bundle, tmp_path) -> None:
    first, second = make_bundle(run_id="one"), make_bundle(run_id="two")
    assert first != second

    async def work() -> None:
        async with opened() as application:
            one = await application.registry.register(announced(first), pieces(first))
            same = await application.registry.register(announced(first), pieces(first))
            assert same == one
            two = await application.registry.register(announced(second), pieces(second))
            assert two.model_version == one.model_version
            (stored,) = archives(tmp_path)
            assert stored.read_bytes() == second
            assert len((await application.registry.list("")).items) == 2

    run(work())


def test_the_live_encoder_is_no_candidate(opened, run, make_bundle, tmp_path, embedder) -> None:
    data = make_bundle()
    path = tmp_path / "live.tar"
    path.write_bytes(data)
    live = type(embedder)(open_bundle(path).model_version)

    async def work() -> None:
        async with opened(with_embedder=live) as application:
            with pytest.raises(AlreadyExists, match="nothing was learnt"):
                await application.registry.register(announced(data), pieces(data))
            assert archives(tmp_path) == []

    run(work())


def test_a_caller_who_falls_silent_or_leaves_keeps_no_place(
    opened, run, make_bundle, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(archive_upload, "SILENCE_SECONDS", 0.05)
    data = make_bundle()

    async def work() -> None:
        async with opened(models={"max_uploads": 1}) as application:
            register = application.registry.register
            begun = asyncio.Event()

            async def silent() -> AsyncIterator[bytes]:
                yield data[:10]
                begun.set()
                await asyncio.Event().wait()

            waiting = asyncio.create_task(register(announced(data), silent()))
            await begun.wait()
            with pytest.raises(ResourceExhausted, match="max_uploads"):
                await register(announced(data), pieces(data))
            with pytest.raises(DeadlineExceeded):
                await waiting
            begun.clear()
            leaving = asyncio.create_task(register(announced(data), silent()))
            await begun.wait()
            assert len(archives(tmp_path)) == 1
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert archives(tmp_path) == []
            await register(announced(data), pieces(data))

    run(work())


def test_what_a_crash_left_behind_is_swept(opened, run, make_bundle, tmp_path) -> None:
    data = make_bundle()

    async def register() -> None:
        async with opened() as application:
            await application.registry.register(announced(data), pieces(data))

    async def start() -> None:
        async with opened(cameras=False):
            pass

    run(register())
    (kept,) = archives(tmp_path)
    orphan = kept.with_name("f" * 64 + ".tar")
    half = tmp_path / "data" / "bundles" / ".incoming" / "half.tar"
    orphan.write_bytes(b"orphan")
    half.write_bytes(b"half")
    run(start())
    assert archives(tmp_path) == [kept]


def test_a_byte_now_and_then_keeps_no_place(
    opened, run, make_bundle, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(archive_upload, "SILENCE_SECONDS", 1.0)
    data = make_bundle()

    async def drip() -> AsyncIterator[bytes]:
        for start in range(len(data)):
            await asyncio.sleep(0.05)
            yield data[start : start + 1]

    async def work() -> None:
        async with opened() as application:
            with pytest.raises(RequestTooSlow, match="min_upload_bytes_per_second"):
                await application.registry.register(announced(data), drip())
            assert archives(tmp_path) == []

    run(work())


def test_who_is_let_in_no_longer_at_the_end_registers_nothing(
    opened, run, make_bundle, tmp_path
) -> None:
    data = make_bundle()

    async def work() -> None:
        async with opened() as application:
            asking = Call("grpc", "ModelService/RegisterModel", principal=LOCAL)
            call.begin(asking)
            asked: list[int] = []

            async def confirm() -> None:
                asked.append(len(archives(tmp_path)))
                raise Unauthenticated("revoked")

            asking.confirm = confirm
            with pytest.raises(Unauthenticated, match="revoked"):
                await application.registry.register(announced(data), pieces(data))
            assert asked == [1], "once, when all of it has come"
            assert archives(tmp_path) == []
            listed = await application.registry.list("")
            assert [model.state for model in listed.items] == [ModelState.LIVE]

    run(work())
