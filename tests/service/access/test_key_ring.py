"""Keys as two replicas over one catalog know them, and what those cost that nobody has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resight.errors import Unauthenticated, Unavailable
from service import call
from service.access.bootstrap import BOOTSTRAP
from service.access.door import Door
from service.access.gate import Credentials
from service.access.key_ring import KeyRing
from service.access.key_text import digest_of, key_id_of, new_key_id, new_text
from service.access.open_streams import OpenStreams
from service.access.revocations import Revocations
from service.application.api_keys import ApiKeys
from service.call import Call
from service.catalog.store import Catalog
from service.domain.api_key import KeyRequest
from service.domain.principal import LOCAL

REFRESH = 0.3


class Hand:
    def __init__(self) -> None:
        self.time = datetime.now(UTC)

    def now(self) -> datetime:
        return self.time


class Replica:
    """Catalog, ring, door and use case of one process."""

    def __init__(self, url: str, clock: Hand, folder: Path) -> None:
        self.catalog = Catalog(url, clock=clock)
        self.reads = 0
        counted, read = self.catalog.read, self.catalog.read

        async def counting(*arguments: Any, **named: Any) -> Any:
            self.reads += 1
            return await read(*arguments, **named)

        del counted
        self.catalog.read = counting  # type: ignore[method-assign]
        self.ring = KeyRing(self.catalog, clock, refresh_seconds=REFRESH)
        revocations = Revocations(folder)
        self.keys = ApiKeys(
            catalog=self.catalog, clock=clock, revocations=revocations, max_page_size=100
        )
        self.keys.changed = self.ring.changed
        self.door = Door(self.ring, bootstrap=digest_of("b" * 40))

    async def lets_in(self, text: str) -> bool:
        try:
            await self.door.authenticate(Credentials(f"Bearer {text}"))
        except Unauthenticated:
            return False
        return True


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def replicas(catalog_url: str, clock: Hand, tmp_path: Path) -> Callable[[Any], None]:
    """``replicas(work)``: run ``work(one, other)``."""

    @asynccontextmanager
    async def both() -> AsyncIterator[tuple[Replica, Replica]]:
        one, other = (Replica(catalog_url, clock, tmp_path) for _ in range(2))
        try:
            yield one, other
        finally:
            for replica in (one, other):
                await asyncio.to_thread(replica.catalog.close)

    def run(work: Callable[[Replica, Replica], Awaitable[None]]) -> None:
        async def whole() -> None:
            call.begin(Call("grpc", "AdminService/CreateApiKey", principal=LOCAL))
            async with both() as (one, other):
                await work(one, other)

        asyncio.run(whole())

    return run


def asked(**more: Any) -> KeyRequest:
    return KeyRequest("test", scopes=["search"], **more)


def test_a_key_is_known_at_once_here_and_soon_elsewhere(replicas: Any) -> None:
    async def work(one: Replica, other: Replica) -> None:
        assert not await other.lets_in(new_text(new_key_id()))
        made = await one.keys.create(asked())
        assert await one.lets_in(made.text)
        begun = time.monotonic()
        while not await other.lets_in(made.text):
            assert time.monotonic() - begun < 30
            await asyncio.sleep(0.01)
        await one.keys.revoke(made.key.key_id)
        assert not await one.lets_in(made.text)
        begun = time.monotonic()
        while await other.lets_in(made.text):
            # What it knows is never older than that, however long its reads take.
            assert time.monotonic() - begun < REFRESH + 10
            await asyncio.sleep(0.01)

    replicas(work)


def lapsed(stream: Call) -> bool:
    return stream.lapsed is not None


def test_a_stream_on_another_replica_ends_with_its_key(replicas: Any) -> None:
    async def work(one: Replica, other: Replica) -> None:
        made, kept = await one.keys.create(asked()), await one.keys.create(asked())
        streams = OpenStreams(
            lambda shown: other.door.authenticate(Credentials(shown)), seconds=REFRESH
        )
        ends, goes_on = (Call("grpc", "GalleryService/IngestCrops") for _ in range(2))
        with streams.one(ends, f"Bearer {made.text}"), streams.one(goes_on, f"Bearer {kept.text}"):
            before, deadline = other.reads, time.monotonic() + 60
            while other.reads < before + 3:  # an idle stream keeps what is known fresh
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            assert not lapsed(ends)
            await one.keys.revoke(made.key.key_id)
            while not lapsed(ends):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            assert not lapsed(goes_on)

    replicas(work)


def test_keys_that_nobody_has_cost_no_reads(replicas: Any) -> None:
    async def work(one: Replica, other: Replica) -> None:
        made = await one.keys.create(asked())
        assert await other.lets_in(made.text)
        other.reads = 0
        begun = time.monotonic()
        for _ in range(2000):
            assert not await other.lets_in(new_text(new_key_id()))
        # It is read again when it is half as old as it may be.
        assert other.reads <= (time.monotonic() - begun) / (REFRESH / 2) + 1
        other.reads = 0
        await asyncio.sleep(REFRESH + 0.01)
        begun = time.monotonic()
        answers = await asyncio.gather(*(other.lets_in(made.text) for _ in range(50)))
        assert all(answers)
        assert 1 <= other.reads <= (time.monotonic() - begun) / (REFRESH / 2) + 1

    replicas(work)


def test_nothing_but_the_whole_key_lets_in(replicas: Any) -> None:
    async def work(one: Replica, other: Replica) -> None:
        text = (await one.keys.create(asked())).text
        for wrong in (
            text[:-1], text + "A", text.upper(), text.replace("rsk_", "rsk-"),
            f"rsk_{key_id_of(text)}_{new_text(new_key_id())[21:]}",
            new_text(new_key_id())[:20] + text[20:], "rsk_", "", "b" * 39, "b" * 41,
        ):  # fmt: skip
            assert not await one.lets_in(wrong), wrong
        bootstrap = Credentials("bearer " + "b" * 40)
        assert await one.door.authenticate(bootstrap) is BOOTSTRAP
        principal = await one.door.authenticate(Credentials(f"Bearer {text}"))
        assert principal.name == f"key:{key_id_of(text)}"
        assert principal.scopes == {"search"}

    replicas(work)


def test_a_key_expires_on_time(replicas: Any, clock: Hand) -> None:
    async def work(one: Replica, other: Replica) -> None:
        made = await one.keys.create(asked(expire_time=clock.now() + timedelta(seconds=60)))
        clock.time += timedelta(seconds=59)
        assert await one.lets_in(made.text)
        clock.time += timedelta(seconds=1)
        assert not await one.lets_in(made.text)
        assert not await other.lets_in(made.text)

    replicas(work)


def test_what_began_in_time_goes_on_after_an_expiry_and_not_after_a_revocation(
    replicas: Any, clock: Hand
) -> None:
    async def work(one: Replica, other: Replica) -> None:
        made = await one.keys.create(asked(expire_time=clock.now() + timedelta(seconds=60)))
        shown = Credentials(f"Bearer {made.text}")
        assert await one.lets_in(made.text)
        clock.time += timedelta(seconds=100)
        for replica in (one, other):
            # One has known it since before, the other reads those alone that hold.
            assert (await replica.door.authenticate(shown, ago=41)).name.startswith("key:")
            for ago in (0.0, 39.0):
                with pytest.raises(Unauthenticated):
                    await replica.door.authenticate(shown, ago=ago)
            wrong = Credentials(f"Bearer {made.text[:-1]}{'AB'[made.text[-1] == 'A']}")
            with pytest.raises(Unauthenticated):
                await replica.door.authenticate(wrong, ago=41)
        await one.keys.revoke(made.key.key_id)
        for replica in (one, other):
            replica.ring.changed()
            with pytest.raises(Unauthenticated):
                await replica.door.authenticate(shown, ago=41)

    replicas(work)


def test_nobody_is_let_in_by_what_is_known_for_too_long(replicas: Any) -> None:
    async def work(one: Replica, other: Replica) -> None:
        made = await one.keys.create(asked())
        assert await one.lets_in(made.text)

        async def gone(*_: Any, **__: Any) -> Any:
            raise Unavailable("the catalog is gone")

        one.catalog.read = gone  # type: ignore[method-assign]
        await asyncio.sleep(REFRESH + 0.01)
        with pytest.raises(Unavailable):
            await one.lets_in(made.text)

    replicas(work)


def test_a_read_that_fails_turns_nobody_away_while_what_is_known_is_young(
    replicas: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(
        "service.access.key_ring.time", SimpleNamespace(monotonic=lambda: now), raising=True
    )

    async def work(one: Replica, _: Replica) -> None:
        nonlocal now
        made = await one.keys.create(asked())
        now += 0.01
        assert await one.lets_in(made.text)
        reads = 0

        async def gone(*_: Any, **__: Any) -> Any:
            nonlocal reads
            reads += 1
            raise Unavailable("the catalog is gone")

        one.catalog.read = gone  # type: ignore[method-assign]
        now += 0.9 * REFRESH
        assert await one.lets_in(made.text)
        assert reads == 1
        now += 0.2 * REFRESH
        with pytest.raises(Unavailable):
            await one.lets_in(made.text)

    replicas(work)


def test_the_catalog_has_the_digest_alone(replicas: Any, query: Any) -> None:
    texts = []

    async def work(one: Replica, other: Replica) -> None:
        texts.append((await one.keys.create(asked())).text)

    replicas(work)
    ((digest, *columns),) = query("SELECT secret_sha256, * FROM api_keys")
    assert bytes(digest) == digest_of(texts[0])
    assert texts[0][21:] not in repr(columns)
