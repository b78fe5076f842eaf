"""An ingest's result as an HTTP answer: what a stream item is told, a REST caller gets raised."""

from __future__ import annotations

from resight import errors
from service.application.ingest import IngestResult, Outcome

__all__ = ["raise_unless_stored"]

_REJECTIONS: dict[str, type[errors.ResightError]] = {
    errors.UndecodableImage.reason: errors.UndecodableImage,
    errors.ImageTooLarge.reason: errors.ImageTooLarge,
    "CAMERA_NOT_REGISTERED": errors.NotFound,
    "GALLERY_NOT_FOUND": errors.NotFound,
    "ID_CONFLICT": errors.AlreadyExists,
    "GALLERY_NOT_ALLOWED": errors.PermissionDenied,
    "CAMERA_NOT_ALLOWED": errors.PermissionDenied,
    "TIME_NOT_ALLOWED": errors.PermissionDenied,
    "ENCODER_FAILED": errors.ResightError,
    "INTERNAL": errors.ResightError,
}
_BUSY = ("QUEUE_FULL", "QUEUE_BYTES", errors.ResourceExhausted.reason)


def raise_unless_stored(result: IngestResult) -> None:
    """Return when the crop is stored.

    Raises:
        ResightError: The class that fits the reason it was rejected or is to be retried for.
    """
    if result.outcome is Outcome.REJECTED:
        kind = _REJECTIONS.get(result.reason, errors.InvalidArgument)
        raise kind(result.message, field=result.field, reason=result.reason)
    if result.outcome is Outcome.RETRY:
        kind = errors.ResourceExhausted if result.reason in _BUSY else errors.Unavailable
        raise kind(result.message, field=result.field, reason=result.reason)
