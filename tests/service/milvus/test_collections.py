"""What is dropped at start: the collections of models fed no more, and no one else's."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from service.backend_settings import MilvusSettings
from service.catalog.records import GalleryRecord
from service.milvus.collection import Collection
from service.milvus.collections import MilvusIndexes, collection_name
from tests.contract.adapters import milvus_client, milvus_uri

_numbers = itertools.count()


def record(name: str, version: str) -> GalleryRecord:
    return GalleryRecord(1, name, 1, version, 4)


@pytest.fixture
def prefix() -> Iterator[str]:
    client, own = milvus_client(), f"drop{os.getpid()}_{next(_numbers)}"
    yield own
    for name in client.list_collections():
        if name.startswith(own):
            client.drop_collection(name)


def indexes(prefix: str) -> MilvusIndexes:
    return MilvusIndexes(MilvusSettings(uri=milvus_uri(), prefix=prefix))


def there(prefix: str) -> set[str]:
    return {name for name in milvus_client().list_collections() if name.startswith(prefix)}


def test_only_models_of_these_galleries_that_are_fed_no_more_are_dropped(prefix: str) -> None:
    mine, other = indexes(prefix), indexes(f"{prefix}_b")
    live, retired = record("b-site", "live"), record("b-site", "retired")
    gone, elsewhere = record("b-site", "gone"), record("elsewhere", "live")
    for each in (live, retired, gone, elsewhere):
        mine(each)
    # Named PREFIX_b_site_DIGEST, too, but it belongs to the process with the longer prefix.
    theirs = record("site", "theirs")
    other(theirs)
    assert mine.drop_others([live], [live, retired]) == 2
    assert there(prefix) == {
        collection_name(prefix, live),
        collection_name(prefix, elsewhere),
        collection_name(f"{prefix}_b", theirs),
    }
    assert mine.drop_others([live], [live, retired]) == 0


def test_one_that_bears_no_mark_is_dropped_when_the_catalog_knows_its_model(prefix: str) -> None:
    retired, unknown = record("site", "retired"), record("site", "unknown")

    def made(each: GalleryRecord) -> Any:
        name = collection_name(prefix, each)
        return Collection(milvus_client(), name, 4, embedded=True)

    for each in (retired, unknown):
        made(each)
    assert indexes(prefix).drop_others([], [retired]) == 1
    assert there(prefix) == {collection_name(prefix, unknown)}


def test_the_mark_is_kept_with_the_rows_own(prefix: str) -> None:
    mine, live = indexes(prefix), record("site", "live")
    mine(live).clear()
    mine(live)
    assert mine.drop_others([], [record("site", "other")]) == 1
