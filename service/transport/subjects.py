"""What a call is about, where that is one thing which it names: a crop, a camera, a key, a model, a
run or an erasure.

Noted as soon as it is known, so that it stands in what the audit says of a call that was refused,
and of a change that began and never ended. What is no such name by its syntax is not noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from resight.errors import InvalidArgument
from service import call
from service.domain import names

__all__ = ["SUBJECTS", "Subject", "note_fields", "note_message"]

_KEY = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9._:+-]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Subject:
    """How a call names what it is about.

    Attributes:
        name: What the audit calls it.
        field: Its field in paths, bodies and forms, and in the message.
        inside: The field of the message that has it, where it lies deeper.
        checked: The name as it is noted; raises for what is none.
    """

    name: str
    field: str
    checked: Callable[[str], str]
    inside: str = ""


def _uuid(text: str) -> str:
    return str(names.crop_id(text))


def _matching(pattern: re.Pattern[str]) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if not pattern.fullmatch(text):
            raise InvalidArgument("it is no name")
        return text

    return checked


_CROP = Subject("crop_id", "crop_id", _uuid)
_CAMERA = Subject("camera_id", "camera_id", names.camera_id)
_KEY_ID = Subject("key_id", "key_id", _matching(_KEY))
_MODEL = Subject("model_version", "model_version", _matching(_VERSION))
_RUN = Subject("run_id", "run_id", _uuid)
_ERASURE = Subject("erasure_id", "erasure_id", _uuid)

# A method that is not here is about all of a gallery, about many things, or about none.
SUBJECTS: Mapping[str, Subject] = {
    "GalleryService/CreateCamera": Subject("camera_id", "camera_id", names.camera_id, "camera"),
    "GalleryService/IngestCrops": _CAMERA,  # of one crop over REST
    "GalleryService/GetCrop": _CROP,
    "GalleryService/DeleteCrop": _CROP,
    "ModelService/RegisterModel": Subject("run_id", "run_id", _uuid, "upload"),
    "ModelService/GetModel": _MODEL,
    "ModelService/StageModel": _MODEL,
    "ModelService/PromoteModel": _MODEL,
    "ModelService/RollbackModel": Subject("leaving", "model_version", _matching(_VERSION)),
    "ModelService/RetireModel": _MODEL,
    "ModelService/PauseFilling": _MODEL,
    "ModelService/ResumeFilling": _MODEL,
    "AdaptationService/StreamAdaptationCrops": _RUN,
    "AdaptationService/HeartbeatAdaptationRun": _RUN,
    "AdaptationService/ReportAdaptationRun": _RUN,
    "AdaptationService/CheckAdaptationCrops": _RUN,
    "AdaptationService/FinishAdaptationRun": _RUN,
    "AdaptationService/GetAdaptationRun": _RUN,
    "AdaptationService/ListAdaptationRunCrops": _RUN,
    "AdminService/RevokeApiKey": _KEY_ID,
    "AdminService/ListErasureCrops": _ERASURE,
    "AdminService/ConfirmErasure": _ERASURE,
    "AdminService/CancelErasure": _ERASURE,
    "AdminService/GetErasure": _ERASURE,
    "AdminService/UpdateCameraRetention": _CAMERA,
}


def note_message(message: Any) -> None:
    """Note what the message of a call names; of a stream, its first."""
    subject = SUBJECTS.get(call.current().method)
    if subject is None:
        return
    about = getattr(message, subject.inside) if subject.inside else message
    _note(subject, getattr(about, subject.field, None))


def note_fields(fields: Mapping[str, Any]) -> None:
    """Note what the path of a request names, or its form, or its JSON object."""
    subject = SUBJECTS.get(call.current().method)
    if subject is not None:
        _note(subject, fields.get(subject.field))


def _note(subject: Subject, given: object) -> None:
    if not isinstance(given, str) or not given:
        return
    with suppress(InvalidArgument):
        call.current().note(**{subject.name: subject.checked(given)})
