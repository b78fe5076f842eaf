"""A model's life where the vectors lie in Milvus: a collection a model, gone when it is retired."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from service.catalog import lifecycle
from service.catalog.model_states import Actor, Note
from service.catalog.models import model_removals
from tests.contract.adapters import milvus_client, milvus_uri
from tests.service.application.lifecycle.conftest import NOON


@pytest.fixture
def prefix() -> Iterator[str]:
    client, own = milvus_client(), f"life{os.getpid()}"
    yield own
    for name in client.list_collections():
        if name.startswith(own):
            client.drop_collection(name)


def collections(prefix: str) -> int:
    return sum(name.startswith(prefix) for name in milvus_client().list_collections())


def places(prefix: str) -> dict[str, dict[str, str]]:
    return {"index": {"backend": "milvus"}, "milvus": {"uri": milvus_uri(), "prefix": prefix}}


def test_a_promotion_between_two_collections(site, run, prefix) -> None:
    async def work() -> None:
        async with site(**places(prefix)) as it:
            await it.ingest(range(20))
            version = await it.promoted(2)
            assert await it.check() == 2
            await it.ingest(range(20, 30))
            await it.application.models.lifecycle.rollback("")
            assert await it.check() == 1
            assert collections(prefix) == 2
            await it.application.models.lifecycle.retire("", version)
            await it.until(lambda: collections(prefix) == 1)
            await it.ingest(range(30, 33))
            assert await it.check() == 1

    run(work())


def test_a_model_retired_while_this_process_was_down_keeps_no_vectors(
    site, run, prefix, caplog
) -> None:
    async def work() -> None:
        async with site(**places(prefix)) as it:
            await it.ingest(range(20))
            version = await it.promoted(2)
            row = it.application._galleries.get("").row
            seen, versions = it.crops, it.versions
        assert collections(prefix) == 2

        def retired(connection) -> None:
            lifecycle.retire(connection, row, versions[1], note=Note(Actor.CALLER, "", NOON))
            # As a replica did, which has deleted the vectors since, with its own collection.
            connection.execute(delete(model_removals))

        async with site(data="other", crops=seen) as it:
            await it.application._catalog.change(retired)
        caplog.clear()
        async with site(crops=seen, **places(prefix)) as it:
            assert collections(prefix) == 1
            assert "1 collections of models fed no more were dropped" in caplog.text
            it.versions[2] = version
            assert await it.check() == 2

    run(work())
