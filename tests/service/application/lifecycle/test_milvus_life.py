"""A model's life where the vectors lie in Milvus: a collection a model, gone when it is retired."""

from __future__ import annotations

import os

from tests.contract.adapters import milvus_client, milvus_uri


def test_a_promotion_between_two_collections(site, run) -> None:
    client = milvus_client()
    prefix = f"life{os.getpid()}"

    def collections() -> int:
        return sum(name.startswith(prefix) for name in client.list_collections())

    async def work() -> None:
        places = {"index": {"backend": "milvus"}, "milvus": {"uri": milvus_uri(), "prefix": prefix}}
        async with site(**places) as it:
            await it.ingest(range(20))
            version = await it.promoted(2)
            assert await it.check() == 2
            await it.ingest(range(20, 30))
            await it.application.models.lifecycle.rollback("")
            assert await it.check() == 1
            assert collections() == 2
            await it.application.models.lifecycle.retire("", version)
            await it.until(lambda: collections() == 1)
            await it.ingest(range(30, 33))
            assert await it.check() == 1

    try:
        run(work())
    finally:
        for name in client.list_collections():
            if name.startswith(prefix):
                client.drop_collection(name)
