"""The index of a gallery and model, in the backend that the settings name."""

from __future__ import annotations

from collections.abc import Callable

from resight.errors import FailedPrecondition, InvalidArgument
from service.backend_settings import Backend, GpuSettings, MilvusSettings
from service.catalog.records import GalleryRecord
from service.domain.ports import GalleryIndex
from service.gallery.index import SEGMENT_ROWS, SegmentedIndex
from service.gallery.search_threads import SearchThreads
from service.milvus.collections import MilvusIndexes

__all__ = ["IndexFactory", "index_factory", "segmented"]

IndexFactory = Callable[[GalleryRecord], GalleryIndex]


def index_factory(
    backend: Backend,
    *,
    gather_rows: int = 16_384,
    segment_rows: int = SEGMENT_ROWS,
    threads: SearchThreads | None = None,
    milvus: MilvusSettings = MilvusSettings(),  # noqa: B008
    gpu: GpuSettings = GpuSettings(),  # noqa: B008
) -> IndexFactory:
    """What makes an index of a record; connected, or checked, now.

    An index of ``segmented`` and ``gpu`` (which is a SegmentedIndex as well) is empty; one of
    ``milvus`` has the rows that its collection has.

    Raises:
        InvalidArgument: ``milvus.uri`` is missing.
        FailedPrecondition: the extra is not installed, or the GPU failed its check.
        Unavailable: Milvus does not answer.
    """
    if backend == "milvus":
        return _milvus(milvus)
    if backend == "gpu":
        return _gpu(gpu, gather_rows=gather_rows, segment_rows=segment_rows, threads=threads)
    return lambda record: SegmentedIndex(
        record.dimension, gather_rows=gather_rows, segment_rows=segment_rows, threads=threads
    )


def segmented(index: GalleryIndex) -> SegmentedIndex:
    """The index, where its rows are in this process.

    Raises:
        FailedPrecondition: they are not (reason ``INDEX_ELSEWHERE``).
    """
    if not isinstance(index, SegmentedIndex):
        raise FailedPrecondition(
            "index.backend keeps the vectors outside this process, where they cannot be looked at "
            "row by row; use a service with index.backend segmented on the same catalog",
            field="index.backend",
            reason="INDEX_ELSEWHERE",
        )
    return index


def _milvus(settings: MilvusSettings) -> IndexFactory:
    if not settings.uri:
        raise InvalidArgument(
            "index.backend is milvus and milvus.uri is not set; give the server's, for example "
            "http://milvus:19530 (RESIGHT_MILVUS__URI)",
            field="milvus.uri",
        )
    return MilvusIndexes(settings)


def _gpu(
    settings: GpuSettings, *, gather_rows: int, segment_rows: int, threads: SearchThreads | None
) -> IndexFactory:
    from service.gpu.device import Device
    from service.gpu.faiss_scanner import FaissScanner
    from service.gpu.index import GpuIndex

    device = Device(lambda: FaissScanner(settings.device, scratch_bytes=settings.scratch_bytes))
    return lambda record: GpuIndex(
        record.dimension,
        device=device,
        gather_rows=gather_rows,
        segment_rows=segment_rows,
        threads=threads,
        cpu_rows=settings.cpu_rows,
    )
