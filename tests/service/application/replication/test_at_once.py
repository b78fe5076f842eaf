"""Replicas that do the same things at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from service.application.application import Application
from service.application.ingest import Outcome
from service.domain.crop import Camera
from tests.service.application.replication.two_replicas import Together, eventually, ids_found, item

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

STORED = text(
    "SELECT c.crop_id, e.vector FROM crops c JOIN embeddings e USING (crop_row)"
    " JOIN galleries g USING (gallery_row) WHERE g.name = :name"
)


@pytest.mark.parametrize("seed", range(3))
def test_both_end_as_the_catalog_whatever_both_did_at_the_same_time(
    both: Together, run: Callable, at: Callable, vectors: Callable, query: Callable, seed: int
) -> None:
    async def client(application: Application, chance: random.Random, base: int) -> None:
        mine: list[UUID] = []
        for step in range(60):
            gallery = chance.choice(["", "second"])
            if mine and chance.random() < 0.3:
                name, crop_id = mine.pop(chance.randrange(len(mine)))
                assert await application.crops.delete(name, str(crop_id)) == ()
                continue
            result = await application.ingest.submit(item(base + step, at, gallery=gallery))
            assert result.outcome is Outcome.ACCEPTED, result
            mine.append((gallery, result.crop_id))

    async def work() -> None:
        async with both() as (a, b):
            await a.cameras.create("second", Camera("c1"))

            async def known() -> bool:
                return {g.name for g in b._galleries.all()} == {"default", "second"} and all(
                    "c1" in g.cameras for g in b._galleries.all()
                )

            await eventually(known)
            await asyncio.gather(
                *(
                    client(application, random.Random(f"{seed} {number}"), number * 1000)
                    for number, application in enumerate([a, b] * 3)
                )
            )
            newest = dict(query("SELECT name, position FROM galleries"))

            async def even() -> bool:
                return all(
                    application._galleries.get(name).applied == position
                    for application in (a, b)
                    for name, position in newest.items()
                )

            await eventually(even)
            probe = vectors(b"anybody")
            for name in newest:
                stored = {
                    UUID(bytes=bytes(crop_id)): np.frombuffer(bytes(vector), "<f4")
                    for crop_id, vector in query(STORED.bindparams(name=name))
                }
                assert len(stored) > 20
                scores = {
                    crop_id: float(vector.astype(np.float64) @ probe.astype(np.float64))
                    for crop_id, vector in stored.items()
                }
                ranked = sorted(stored, key=lambda crop_id: -scores[crop_id])
                for application in (a, b):
                    assert await ids_found(application, b"anybody", gallery=name) == ranked

    run(work())


def test_replicas_that_start_together_on_an_empty_catalog(
    replica: Callable, run: Callable, at: Callable
) -> None:
    async def work() -> None:
        async def start(name: str) -> None:
            async with replica(name, cameras=True) as application:
                made = [application.cameras.create(f"g{n}", Camera("c1")) for n in range(20)]
                await asyncio.gather(*made)
                stored = await application.ingest.submit(item(0, at, gallery="g7"))
                assert stored.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)

        await asyncio.gather(*(start(name) for name in "abcd"))

    run(work())
