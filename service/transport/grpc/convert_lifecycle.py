"""Between the messages of a model's life and the application's values."""

from __future__ import annotations

from resight.v1 import model_service_pb2 as messages
from service.application.model_changes import Promoted
from service.domain.filling import Filling, FillingSource, FillingState
from service.domain.model import Model
from service.transport.grpc.convert_adaptation import model_message
from service.transport.grpc.convert_time import timestamp

__all__ = ["filling_message", "promoted_message"]

_SOURCES = {
    FillingSource.IMAGES: messages.Filling.SOURCE_IMAGES,
    FillingSource.MAP: messages.Filling.SOURCE_MAP,
    FillingSource.NONE: messages.Filling.SOURCE_NONE,
}
_STATES = {
    FillingState.RUNNING: messages.Filling.STATE_RUNNING,
    FillingState.PAUSED: messages.Filling.STATE_PAUSED,
    FillingState.COMPLETE: messages.Filling.STATE_COMPLETE,
}


def filling_message(filling: Filling) -> messages.Filling:
    """Progress."""
    ended = filling.complete_time
    return messages.Filling(
        source=_SOURCES[filling.source],
        state=_STATES[filling.state],
        total_crops=filling.total,
        done_crops=filling.done,
        failed_crops=filling.failed,
        failures=[
            messages.FailedCrop(crop_id=str(item.crop_id), reason=item.reason.value)
            for item in filling.failures
        ],
        start_time=timestamp(filling.start_time),
        update_time=timestamp(filling.update_time),
        complete_time=None if ended is None else timestamp(ended),
    )


def promoted_message(promoted: Promoted, model: Model) -> messages.PromoteModelResponse:
    """What answers now."""
    return messages.PromoteModelResponse(
        model=model_message(model),
        previous_version=promoted.previous_version,
        sampled_crops=promoted.checked.sampled,
        vectors=promoted.checked.vectors,
        unsearchable_crops=promoted.unsearchable,
        dual_served_crops=promoted.dual_served,
    )
