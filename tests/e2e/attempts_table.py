"""What is tried in vain over each RPC and its route, and what the audit must say of it, by the
issue and docs/audit.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ATTEMPTS", "GONE", "VERSION", "Attempt"]

GONE = "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"
VERSION = "0123456789abcdef"
KEY = "00000000000000aa"


@dataclass(frozen=True)
class Attempt:
    """One attempt that fails.

    Attributes:
        rpc: The RPC, and its route when REST mirrors it one to one.
        reason: Why it fails.
        message: The gRPC request as JSON; ``{hall}`` stands for a crop of the camera `hall`.
        path: Of the route, below the gallery or ``/v1``.
        sent: The rest of the HTTP request; its body is the message's without the gallery unless
            told.
        notes: What the audit must have of it.
        named: The field at fault; None for whichever.
        who: `admin` without limits, or `limited` to the camera `door`.
        begins: What an entry of its beginning must have; None where there is none.
    """

    rpc: str
    reason: str
    verb: str
    path: str
    message: Mapping[str, Any] = field(default_factory=dict)
    sent: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    named: str | None = None
    who: str = "admin"
    begins: Mapping[str, Any] | None = None


def _of_run(name: str, verb: str, path: str, *, leased: bool = True, **more: Any) -> Attempt:
    """A call of a run that is not there, by somebody who shows a token of one."""
    token = {"lease_token": "t"} if leased else {}
    message = {"run_id": GONE} | token | more.pop("message", {})
    sent = {"headers": {"Resight-Lease": "t"}} | more.pop("sent", {})
    return Attempt(
        f"AdaptationService/{name}", "RUN_NOT_FOUND", verb, f"adaptation-runs/{GONE}{path}",
        message, sent, {"run_id": GONE}, "run_id", **more,
    )  # fmt: skip


def _of_model(name: str, path: str, *, changes: bool = True) -> Attempt:
    noted = {"model_version": VERSION}
    return Attempt(
        f"ModelService/{name}", "MODEL_NOT_FOUND", "POST" if path else "GET",
        f"models/{VERSION}{path}", {"model_version": VERSION},
        {"json": {}} if path in ("/stage", "/promote", "/retire") else {},
        noted, "model_version", begins=noted if changes else None,
    )  # fmt: skip


def _of_erasure(name: str, verb: str, path: str, *, changes: bool, **more: Any) -> Attempt:
    noted = {"erasure_id": GONE}
    return Attempt(
        f"AdminService/{name}", "ERASURE_NOT_FOUND", verb, f"erasures/{GONE}{path}",
        {"erasure_id": GONE} | more.pop("message", {}), more.pop("sent", {}),
        noted | more.pop("notes", {}), "erasure_id", begins=noted if changes else None,
    )  # fmt: skip


def _nowhere(rpc: str, verb: str, path: str, **more: Any) -> Attempt:
    """A call that is about a gallery alone, which is not there."""
    message = {"gallery": "nowhere"} | more.pop("message", {})
    return Attempt(rpc, "GALLERY_NOT_FOUND", verb, path, message, named="gallery", **more)


_HALL = {"include_camera_ids": ["hall"]}
_TRAVEL = {
    "from_camera_id": "door", "to_camera_id": "hall",
    "min_seconds": 1, "typical_seconds": 2, "max_seconds": 3,
}  # fmt: skip
_KEY = {"display_name": "too much", "galleries": ["default"], "requests_per_day": 9}
_WIDE = {
    "name": "too much", "scopes": ["search"], "galleries": ["default"], "cameras": [],
    "captured_from": None, "captured_before": "2027-01-01T00:00:00+00:00",
    "requests_per_minute": 0, "requests_per_day": 9, "expire_time": None,
}  # fmt: skip
_UNTIL = {"end_time": "2027-01-01T00:00:00Z"}

ATTEMPTS = [
    Attempt("SearchService/Search", "CAMERA_NOT_ALLOWED", "POST", "search",
            {"crop_id": "{door}", "top_k": 3, "filter": _HALL},
            notes={"query": "crop", "top_k": 3, "cameras": ["hall"], "query_crop_id": "{door}"},
            named="filter.include_camera_ids", who="limited"),
    # Of another camera: as if it were not there.
    Attempt("SearchService/Search", "CROP_NOT_FOUND", "POST", "search",
            {"crop_id": "{hall}"}, notes={"query_crop_id": "{hall}"}, named="crop_id",
            who="limited"),
    Attempt("SearchService/Search", "CROP_NOT_FOUND", "POST", "search",
            {"positives": [{"crop_id": "{door}"}], "negatives": [{"crop_id": "{hall}"}]},
            notes={"query": "examples", "example_crop_ids": ["{door}", "{hall}"]},
            named="negatives[0].crop_id", who="limited"),
    Attempt("SearchService/TrackPerson", "CAMERA_NOT_ALLOWED", "POST", "track",
            {"query": {"crop_id": "{door}", "min_score": 0.5}, "travel_times": [_TRAVEL]},
            notes={"travel_cameras": ["door", "hall"]}, named="travel_times[0].to_camera_id",
            who="limited"),
    Attempt("SearchService/TrackPerson", "CAMERA_NOT_ALLOWED", "POST", "track",
            {"query": {"crop_id": "{door}", "min_score": 0.5, "filter": _HALL}},
            notes={"query_crop_id": "{door}", "cameras": ["hall"]},
            named="filter.include_camera_ids", who="limited"),
    _nowhere("SearchService/GetTravelTimes", "GET", "travel-times"),
    _nowhere("SearchService/LearnTravelTimes", "POST", "travel-times", begins={}),
    _nowhere("EmbedService/Embed", "POST", "embed", message={"image": "AA=="},
             sent={"files": {"image": b"\0"}}),
    Attempt("GalleryService/CreateCamera", "CAMERA_NOT_ALLOWED", "POST", "cameras",
            {"camera": {"camera_id": "hall"}}, {"json": {"camera_id": "hall"}},
            {"camera_id": "hall"}, "camera.camera_id", "limited", {"camera_id": "hall"}),
    _nowhere("GalleryService/ListCameras", "GET", "cameras"),
    Attempt("GalleryService/GetCrop", "CROP_NOT_FOUND", "GET", "crops/{hall}",
            {"crop_id": "{hall}"}, notes={"crop_id": "{hall}", "image": False},
            named="crop_id", who="limited"),
    Attempt("GalleryService/ListCrops", "CAMERA_NOT_ALLOWED", "GET", "crops",
            {"filter": _HALL}, {"params": _HALL}, {"cameras": ["hall"]},
            "filter.include_camera_ids", "limited"),
    Attempt("GalleryService/DeleteCrop", "CROP_NOT_FOUND", "DELETE", f"crops/{GONE}",
            {"crop_id": GONE}, notes={"crop_id": GONE}, named="crop_id",
            begins={"crop_id": GONE}),
    _nowhere("GalleryService/GetGalleryStats", "GET", "stats"),
    Attempt("GalleryService/VerifyGallery", "LIMITED_CALLER", "POST", "verify",
            sent={"json": {}}, named="authorization", who="limited"),
    Attempt("ModelService/RegisterModel", "RUN_NOT_FOUND", "POST", "models",
            {"upload": {"run_id": GONE, "lease_token": "t", "sha256": "A" * 43 + "=",
                        "size_bytes": 9}},
            {"files": {"bundle": b"123456789"}, "data": {"sha256": "0" * 64, "run_id": GONE}},
            {"run_id": GONE}, "run_id", begins={}),
    _of_model("GetModel", "", changes=False),
    _nowhere("ModelService/ListModels", "GET", "models"),
    _of_model("StageModel", "/stage"),
    _of_model("PromoteModel", "/promote"),
    Attempt("ModelService/RollbackModel", "MODEL_STATE", "POST", "models/rollback",
            {"model_version": VERSION}, notes={"leaving": VERSION}, begins={"leaving": VERSION}),
    _of_model("RetireModel", "/retire"),
    _of_model("PauseFilling", "/filling/pause"),
    _of_model("ResumeFilling", "/filling/resume"),
    _nowhere("AdaptationService/StartAdaptationRun", "POST", "adaptation-runs",
             message={"holder": "night"}, begins={}),
    _of_run("StreamAdaptationCrops", "GET", "/stream", message={"camera_ids": ["door"]},
            sent={"params": {"camera_ids": ["door"]}, "headers": {"Resight-Lease": "t"}},
            begins={"run_id": GONE}),
    _of_run("HeartbeatAdaptationRun", "POST", "/heartbeat", sent={"json": {}}),
    _of_run("ReportAdaptationRun", "POST", "/report", sent={"json": {"new_crop_ids": [GONE]}},
            message={"new_crop_ids": [GONE]}, begins={"run_id": GONE}),
    _of_run("CheckAdaptationCrops", "POST", "/check", sent={"json": {"crop_ids": [GONE]}},
            message={"crop_ids": [GONE]}),
    _of_run("FinishAdaptationRun", "POST", "/finish",
            message={"state": "STATE_FAILED", "reason": "GPU_LOST"},
            sent={"json": {"state": "failed", "reason": "GPU_LOST"}}, begins={"run_id": GONE}),
    _of_run("GetAdaptationRun", "GET", "", leased=False),
    _nowhere("AdaptationService/ListAdaptationRuns", "GET", "adaptation-runs"),
    _of_run("ListAdaptationRunCrops", "GET", "/crops", leased=False),
    Attempt("AdminService/CreateApiKey", "KEY_EXCEEDS_CREATOR", "POST", "/v1/keys",
            {"api_key": {**_KEY, **_UNTIL, "scopes": ["SCOPE_SEARCH"]}},
            {"json": {**_KEY, **_UNTIL, "scopes": ["search"]}}, _WIDE, "api_key.camera_ids",
            "limited", {}),
    Attempt("AdminService/ListApiKeys", "INVALID_ARGUMENT", "GET", "/v1/keys",
            {"page_size": -1}, {"params": {"page_size": -1}}, named="page_size"),
    Attempt("AdminService/RevokeApiKey", "KEY_NOT_FOUND", "POST", f"/v1/keys/{KEY}/revoke",
            {"key_id": KEY}, notes={"key_id": KEY}, named="key_id", begins={"key_id": KEY}),
    Attempt("AdminService/ListAuditEntries", "LIMITED_CALLER", "GET", "/v1/audit",
            named="authorization", who="limited"),
    Attempt("AdminService/VerifyAudit", "LIMITED_CALLER", "POST", "/v1/audit/verify",
            named="authorization", who="limited"),
    Attempt("AdminService/CreateErasure", "CAMERA_NOT_REGISTERED", "POST", "erasures",
            {"subject": {"camera_id": "cellar"}, "reason": "case 12"},
            notes={"subject_kind": "camera", "cameras": ["cellar"]}, begins={}),
    _of_erasure("ListErasureCrops", "GET", "/crops", changes=False),
    _of_erasure("ConfirmErasure", "POST", "/confirm", changes=True, message={"crops": 3},
                sent={"json": {"crops": 3}}, notes={"crops_confirmed": 3}),
    _of_erasure("CancelErasure", "POST", "/cancel", changes=True),
    _of_erasure("GetErasure", "GET", "", changes=False),
    _nowhere("AdminService/ListErasures", "GET", "erasures"),
    Attempt("AdminService/UpdateCameraRetention", "CAMERA_NOT_REGISTERED", "PUT",
            "cameras/cellar/retention", {"camera_id": "cellar", "retention_days": 3},
            {"json": {"retention_days": 3}}, {"camera_id": "cellar", "retention_days": 3},
            begins={"camera_id": "cellar"}),
]  # fmt: skip
