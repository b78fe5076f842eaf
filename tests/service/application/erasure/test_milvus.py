"""Erasure and a camera's own retention where the vectors lie in Milvus."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from uuid import UUID

import pytest

from service.domain.erasure import CameraSubject
from tests.contract.adapters import milvus_client, milvus_uri


@pytest.fixture
def places() -> Iterator[dict[str, dict[str, str]]]:
    client, prefix = milvus_client(), f"erase{os.getpid()}"
    yield {"index": {"backend": "milvus"}, "milvus": {"uri": milvus_uri(), "prefix": prefix}}
    for name in client.list_collections():
        if name.startswith(prefix):
            client.drop_collection(name)


def test_vectors_leave_milvus(opened, run, ingested, clock, places) -> None:
    async def work() -> None:
        async with opened(clock=clock, **places) as application:
            ids = await ingested(application, 12)
            made = await application.erasures.plan("", CameraSubject("c2"), "case 7")
            done = await application.erasures.confirm("", str(made.erasure_id), crops=4)
            told = json.loads(done.receipt)["receipt"]
            assert told["removed_from"]["index"]["backend"] == "milvus"
            assert "Milvus" in {each["where"] for each in told["may_still_hold"]}
            index = application._galleries.get("").serving.index

            def held() -> set[UUID]:
                return {UUID(int=int(high) << 64 | int(low)) for high, low in index.ids().tolist()}

            assert held() == set(ids) - set(ids[1::3])
            await application.camera_retention.update("", "c3", 0.5)
            application.retention.drop_expired()
            assert held() == set(ids[::3])

    run(work())
