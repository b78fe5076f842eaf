"""What stands behind the GalleryIndex port, each made small so that borders are met often."""

from __future__ import annotations

import atexit
import importlib.util
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from resight.errors import FailedPrecondition
from service.domain.ports import GalleryIndex
from service.gallery.index import SegmentedIndex
from service.gallery.search_threads import SearchThreads
from service.gpu.device import Device
from service.gpu.index import GpuIndex
from service.gpu.scanner import Scanner
from tests.service.gpu.scanners import NumpyScanner

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Adapter:
    """One adapter.

    Args:
        name: Of the test.
        opened: An empty index of a dimension; the number chooses among ways to configure it.
        examples: Histories that hypothesis tries.
        shrinks: Whether it looks for a shorter one when one fails; slow adapters would time out.
    """

    name: str
    opened: Callable[[int, int], AbstractContextManager[GalleryIndex]]
    examples: int
    shrinks: bool = True


@contextmanager
def segmented(dimension: int, variant: int) -> Iterator[GalleryIndex]:
    """The built-in index: segment sizes, gathers and threads."""
    choices = list(itertools.product([1, 8, 30, 1000], [0, 3, 1000], [1, 3]))
    segment_rows, gather_rows, count = choices[variant % len(choices)]
    threads = SearchThreads(count)
    try:
        yield SegmentedIndex(
            dimension, gather_rows=gather_rows, segment_rows=segment_rows, threads=threads
        )
    finally:
        threads.close()


@cache
def milvus_client() -> Any:
    """A milvus-lite of this process, or a server's client (RESIGHT_TEST_MILVUS_URI); skips."""
    folder = Path(os.environ.get("RESIGHT_MILVUS", ROOT / ".milvus"))
    if importlib.util.find_spec("pymilvus") is None and (folder / "pymilvus").is_dir():
        # Behind .venv: what both have comes from there.
        sys.path.append(str(folder))
    if importlib.util.find_spec("pymilvus") is None:
        pytest.skip("no pymilvus: `make milvus` installs it beside .venv")
    from service.milvus.connection import connect

    return connect(milvus_uri())


@cache
def milvus_uri() -> str:
    """The server of RESIGHT_TEST_MILVUS_URI, else a new file."""
    if given := os.environ.get("RESIGHT_TEST_MILVUS_URI"):
        return given
    folder = tempfile.mkdtemp(prefix="resight-milvus-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(Path(folder) / "gallery.db")


_numbers = itertools.count()


@contextmanager
def milvus(dimension: int, variant: int) -> Iterator[GalleryIndex]:
    """A collection of its own; answers of few rows make it ask again and split."""
    client = milvus_client()
    from service.milvus.collection import Collection
    from service.milvus.connection import is_server
    from service.milvus.index import MilvusIndex

    name = f"contract_{os.getpid()}_{next(_numbers)}"
    collection = Collection(client, name, dimension, embedded=not is_server(milvus_uri()))
    collection.limit = [collection.limit, 40, 7][variant % 3]
    try:
        yield MilvusIndex(collection)
    finally:
        client.drop_collection(name)


@contextmanager
def gpu(dimension: int, variant: int, made: Callable[[], Scanner]) -> Iterator[GalleryIndex]:
    """The built-in index with a device: sizes of segments and slabs, and what the CPU keeps."""
    choices = list(itertools.product([0, 20], [40, 4, 16], [4, 1], [0, 3, 1000]))
    cpu_rows, segment_rows, group, gather_rows = choices[variant % len(choices)]
    device = Device(made, dimension=dimension)
    try:
        index = GpuIndex(
            dimension,
            device=device,
            segment_rows=segment_rows,
            gather_rows=gather_rows,
            group=group,
            cpu_rows=cpu_rows,
        )
        yield index
        index.settle()
        index.close()
        assert not device.failure
    finally:
        device.close()


@cache
def faiss_gpu() -> Callable[[], Scanner]:
    """The real thing; skips where there is none."""
    from service.gpu.faiss_scanner import FaissScanner

    try:
        FaissScanner(scratch_bytes=1 << 28)
    except FailedPrecondition as error:
        pytest.skip(f"no GPU: {error}")
    return partial(FaissScanner, scratch_bytes=1 << 28)


def faiss_on_gpu(dimension: int, variant: int) -> AbstractContextManager[GalleryIndex]:
    """As ``gpu``, on a card."""
    return gpu(dimension, variant, faiss_gpu())


ADAPTERS = [
    Adapter("segmented", segmented, 60),
    Adapter("milvus", milvus, 15, shrinks=False),
    # Half precision in memory: everything about the GPU index but the GPU.
    Adapter("gpu_in_memory", partial(gpu, made=NumpyScanner), 40),
    Adapter("gpu", faiss_on_gpu, 40),
]

every_adapter = pytest.mark.parametrize(
    "adapter", ADAPTERS, ids=[adapter.name for adapter in ADAPTERS]
)
