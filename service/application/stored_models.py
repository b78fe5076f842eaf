"""What catalog and process have of a model that is to be moved, or why it cannot be."""

from __future__ import annotations

from resight.errors import FailedPrecondition, NotFound
from service.application.gallery import Gallery
from service.application.reembedding import Reembedding
from service.application.serving import LoadedEncoder, Serving
from service.catalog import lifecycle_reads
from service.catalog.records import GalleryRecord
from service.catalog.store import Catalog
from service.domain import model as domain
from service.domain.filling import FillingSource, FillingState
from service.domain.model import ModelState

__all__ = ["changed_meanwhile", "complete_source", "source_without_images", "stored_model", "warm"]


async def stored_model(
    catalog: Catalog, live: Gallery, version: str, state: ModelState | None = None
) -> GalleryRecord:
    """A model of the gallery, in a state if one is asked for.

    Raises:
        InvalidArgument, NotFound: bad or unknown version.
        FailedPrecondition: it is in another state (``MODEL_STATE``).
    """
    wanted = domain.model_version(version)
    found = await catalog.read(lifecycle_reads.model_record, live.row, wanted)
    if found is None:
        raise NotFound(
            f"model {wanted[:80]!a} is not in gallery {live.name!r}; ListModels names those "
            "there are",
            field="model_version",
            reason="MODEL_NOT_FOUND",
        )
    record, known = found
    if state is not None and known is not state:
        raise FailedPrecondition(
            f"model {wanted} is {known.value}; asked for is a {state.value}",
            field="model_version",
            reason="MODEL_STATE",
        )
    return record


async def complete_source(catalog: Catalog, live: Gallery, record: GalleryRecord) -> FillingSource:
    """Where the vectors of a shadow came from that has one of every crop.

    Raises:
        FailedPrecondition: it has not (``FILLING_INCOMPLETE``), or is no shadow any more.
    """
    found = await catalog.read(lifecycle_reads.filling, live.row, record.model_version)
    if found is None:
        raise changed_meanwhile(record)
    if found.state is not FillingState.COMPLETE:
        raise FailedPrecondition(
            f"model {record.model_version} has not got a vector of every crop yet "
            f"({found.done} of {found.total}, {found.state.value}); wait, or resume it",
            field="model_version",
            reason="FILLING_INCOMPLETE",
        )
    return found.source


async def source_without_images(
    reembedding: Reembedding, live: Gallery, record: GalleryRecord, encoder: LoadedEncoder
) -> FillingSource:
    """The bundle's map, or both models side by side where both have calibrations.

    Raises:
        FailedPrecondition: neither can be (``NO_VECTOR_MAP``).
    """
    try:
        await reembedding.vector_map(record, live.record.model_version)
    except FailedPrecondition as error:
        both = encoder.calibration and live.serving.encoder.calibration
        if error.reason != "NO_VECTOR_MAP" or both is None:
            raise
        return FillingSource.NONE
    return FillingSource.MAP


def warm(live: Gallery, record: GalleryRecord) -> Serving:
    """A model that this process feeds beside the live one.

    Raises:
        FailedPrecondition: it does not (any more).
    """
    for serving in live.models.warm:
        if serving.record.model_row == record.model_row:
            return serving
    raise changed_meanwhile(record)


def changed_meanwhile(record: GalleryRecord) -> FailedPrecondition:
    """For a model that is not what it was a moment ago."""
    return FailedPrecondition(
        f"model {record.model_version} has changed its state meanwhile; look at it again",
        field="model_version",
        reason="MODEL_STATE",
    )
