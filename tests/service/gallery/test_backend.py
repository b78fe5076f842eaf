"""The backend that the settings name, and what is said when it cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from pydantic import SecretStr, ValidationError

from resight.errors import FailedPrecondition, InvalidArgument
from service.backend_settings import GpuSettings, MilvusSettings
from service.catalog.records import GalleryRecord
from service.domain.ports import RowFilter
from service.gallery.backend import index_factory
from service.gallery.index import SegmentedIndex
from service.milvus.collections import collection_name
from tests.contract.adapters import milvus_client
from tests.service.gallery.brute_force import Row, as_rows, unit
from tests.service.gpu.scanners import NumpyScanner


def record(name: str = "site", version: str = "v1", dimension: int = 8) -> GalleryRecord:
    return GalleryRecord(1, name, 1, version, dimension)


def rows(count: int) -> list[Row]:
    rng = np.random.default_rng(0)
    return [Row(UUID(int=n + 1), unit(rng.standard_normal(8)), time=n) for n in range(count)]


def test_segments_are_made_as_the_settings_say() -> None:
    made = index_factory("segmented", segment_rows=16)(record())
    assert isinstance(made, SegmentedIndex)
    made.add(as_rows(rows(40)))
    assert [view.rows for view in made.snapshot.views] == [16, 16, 8]


def test_milvus_keeps_the_rows_of_each_gallery_and_model(tmp_path: Path) -> None:
    milvus_client()
    settings = MilvusSettings(uri=str(tmp_path / "gallery.db"))
    factory = index_factory("milvus", milvus=settings)
    held = rows(5)
    factory(record()).add(as_rows(held))
    for other in (record("other"), record(version="v2")):
        assert len(factory(other)) == 0
    hits = factory(record()).search(held[3].vector, 1, RowFilter(), None)
    assert (list(hits.ids), hits.rows_total) == ([held[3].crop_id], 5)


def test_collections_have_names_that_milvus_takes_and_no_two_share_one() -> None:
    names = {
        collection_name("resight", record(name, version))
        for name in ("a-b", "a.b", "a_b", "0day", "x" * 63)
        for version in ("sha256:1", "sha256:2")
    }
    assert len(names) == 10
    for name in names:
        assert name.replace("_", "").isalnum()
        assert name[0].isalpha()
        assert len(name) <= 255


def test_milvus_without_a_uri_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="RESIGHT_MILVUS__URI"):
        index_factory("milvus")


@pytest.mark.parametrize("missing", ["pymilvus", "milvus_lite"])
def test_milvus_without_its_extra_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    if missing == "milvus_lite":
        milvus_client()
    monkeypatch.setitem(sys.modules, missing, None)
    settings = MilvusSettings(uri=str(tmp_path / "gallery.db"))
    with pytest.raises(FailedPrecondition, match=r"resight\[service-cpu,milvus\]") as refused:
        index_factory("milvus", milvus=settings)
    assert refused.value.reason == "EXTRA_MISSING"


def test_the_token_is_not_shown() -> None:
    assert "geheim" not in repr(MilvusSettings(uri="http://m:1", token=SecretStr("geheim")))


@pytest.mark.parametrize(
    "wrong", [{"prefix": "1a"}, {"prefix": "a-b"}, {"timeout_seconds": 0}, {"url": "x"}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MilvusSettings(**wrong)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    import faiss

    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this faiss knows GPUs")
    with pytest.raises(FailedPrecondition, match=r"resight\[service-gpu\]") as refused:
        index_factory("gpu")
    assert refused.value.reason == "EXTRA_MISSING"


def test_a_gpu_serves_every_gallery_with_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    def scanner(device: int, *, scratch_bytes: int) -> NumpyScanner:
        made.append({"device": device, "scratch_bytes": scratch_bytes})
        return NumpyScanner()

    monkeypatch.setattr("service.gpu.faiss_scanner.FaissScanner", scanner)
    settings = GpuSettings(device=3, scratch_bytes=1 << 25)
    factory = index_factory("gpu", segment_rows=16, gpu=settings)
    indexes = [factory(record()), factory(record("other"))]
    assert made == [{"device": 3, "scratch_bytes": 1 << 25}]
    held = rows(40)
    for index in indexes:
        assert isinstance(index, SegmentedIndex)
        index.add(as_rows(held))
        assert list(index.search(held[7].vector, 1, RowFilter(), None).ids) == [held[7].crop_id]
