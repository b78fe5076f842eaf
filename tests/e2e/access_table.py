"""Who may call what, as issue and documentation say it, and written without looking at the code."""

from __future__ import annotations

from typing import Any

__all__ = ["LIMITED", "ROUTES", "SCOPES", "body_of", "gallery_free"]

SEARCH, INGEST, MODELS, ADMIN, AUDIT = "search", "ingest", "models", "admin", "audit"
ALL = (SEARCH, INGEST, MODELS, ADMIN, AUDIT)

# What an RPC needs: any one of these.
SCOPES: dict[str, set[str]] = {
    "SearchService/Search": {SEARCH},
    "SearchService/SearchBatch": {SEARCH},
    "SearchService/TrackPerson": {SEARCH},
    "SearchService/GetTravelTimes": {SEARCH},
    "SearchService/LearnTravelTimes": {SEARCH},
    "EmbedService/Embed": {SEARCH},
    "GalleryService/CreateCamera": {INGEST, ADMIN},
    "GalleryService/ListCameras": {SEARCH, INGEST, MODELS, ADMIN},
    "GalleryService/IngestCrops": {INGEST, ADMIN},
    "GalleryService/GetCrop": {SEARCH},
    "GalleryService/ListCrops": {SEARCH},
    "GalleryService/DeleteCrop": {ADMIN},
    "GalleryService/GetGalleryStats": {SEARCH, INGEST, MODELS, ADMIN},
    "GalleryService/VerifyGallery": {ADMIN},
    "ModelService/RegisterModel": {MODELS, ADMIN},
    "ModelService/GetModel": {MODELS, ADMIN},
    "ModelService/ListModels": {MODELS, ADMIN},
    "ModelService/StageModel": {MODELS, ADMIN},
    "ModelService/PromoteModel": {MODELS, ADMIN},
    "ModelService/RollbackModel": {MODELS, ADMIN},
    "ModelService/RetireModel": {MODELS, ADMIN},
    "ModelService/PauseFilling": {MODELS, ADMIN},
    "ModelService/ResumeFilling": {MODELS, ADMIN},
    "AdaptationService/StartAdaptationRun": {MODELS, ADMIN},
    "AdaptationService/StreamAdaptationCrops": {MODELS, ADMIN},
    "AdaptationService/HeartbeatAdaptationRun": {MODELS, ADMIN},
    "AdaptationService/ReportAdaptationRun": {MODELS, ADMIN},
    "AdaptationService/CheckAdaptationCrops": {MODELS, ADMIN},
    "AdaptationService/FinishAdaptationRun": {MODELS, ADMIN},
    "AdaptationService/GetAdaptationRun": {MODELS, ADMIN},
    "AdaptationService/ListAdaptationRuns": {MODELS, ADMIN},
    "AdaptationService/ListAdaptationRunCrops": {MODELS, ADMIN},
    "AdminService/CreateApiKey": {ADMIN},
    "AdminService/ListApiKeys": {ADMIN},
    "AdminService/RevokeApiKey": {ADMIN},
    "AdminService/ListAuditEntries": {AUDIT},
    "AdminService/VerifyAudit": {AUDIT},
    "AdminService/CreateErasure": {ADMIN},
    "AdminService/ListErasureCrops": {ADMIN, AUDIT},
    "AdminService/ConfirmErasure": {ADMIN},
    "AdminService/CancelErasure": {ADMIN},
    "AdminService/GetErasure": {ADMIN, AUDIT},
    "AdminService/ListErasures": {ADMIN, AUDIT},
    "AdminService/UpdateCameraRetention": {ADMIN},
}

# What somebody limited to some cameras or a time may not call at all.
LIMITED: set[str] = {
    "GalleryService/VerifyGallery",
    "ModelService/StageModel",
    "ModelService/PromoteModel",
    "ModelService/RollbackModel",
    "ModelService/RetireModel",
    "ModelService/PauseFilling",
    "ModelService/ResumeFilling",
    "AdaptationService/StartAdaptationRun",
    "AdaptationService/StreamAdaptationCrops",
    "AdaptationService/HeartbeatAdaptationRun",
    "AdaptationService/ReportAdaptationRun",
    "AdaptationService/CheckAdaptationCrops",
    "AdaptationService/FinishAdaptationRun",
    "AdaptationService/GetAdaptationRun",
    "AdaptationService/ListAdaptationRuns",
    "AdaptationService/ListAdaptationRunCrops",
    "AdminService/ListAuditEntries",
    "AdminService/VerifyAudit",
    "AdminService/CreateErasure",
    "AdminService/ListErasureCrops",
    "AdminService/ConfirmErasure",
    "AdminService/CancelErasure",
    "AdminService/GetErasure",
    "AdminService/ListErasures",
    "AdminService/UpdateCameraRetention",
}

_G = "/v1/galleries/{gallery}"
_M = f"{_G}/models/{{model_version}}"
_R = f"{_G}/adaptation-runs"
_E = f"{_G}/erasures"

# The RPC that a route mirrors.
ROUTES: dict[str, str] = {
    f"POST {_G}/search": "SearchService/Search",
    f"POST {_G}/search-batch": "SearchService/SearchBatch",
    f"POST {_G}/track": "SearchService/TrackPerson",
    f"GET {_G}/travel-times": "SearchService/GetTravelTimes",
    f"POST {_G}/travel-times": "SearchService/LearnTravelTimes",
    f"POST {_G}/embed": "EmbedService/Embed",
    f"POST {_G}/cameras": "GalleryService/CreateCamera",
    f"GET {_G}/cameras": "GalleryService/ListCameras",
    f"POST {_G}/crops": "GalleryService/IngestCrops",
    f"GET {_G}/crops": "GalleryService/ListCrops",
    f"GET {_G}/crops/{{crop_id}}": "GalleryService/GetCrop",
    f"GET {_G}/crops/{{crop_id}}/image": "GalleryService/GetCrop",
    f"DELETE {_G}/crops/{{crop_id}}": "GalleryService/DeleteCrop",
    f"GET {_G}/stats": "GalleryService/GetGalleryStats",
    f"POST {_G}/verify": "GalleryService/VerifyGallery",
    f"POST {_G}/models": "ModelService/RegisterModel",
    f"GET {_G}/models": "ModelService/ListModels",
    f"POST {_G}/models/rollback": "ModelService/RollbackModel",
    f"GET {_M}": "ModelService/GetModel",
    f"POST {_M}/stage": "ModelService/StageModel",
    f"POST {_M}/promote": "ModelService/PromoteModel",
    f"POST {_M}/retire": "ModelService/RetireModel",
    f"POST {_M}/filling/pause": "ModelService/PauseFilling",
    f"POST {_M}/filling/resume": "ModelService/ResumeFilling",
    f"POST {_R}": "AdaptationService/StartAdaptationRun",
    f"GET {_R}": "AdaptationService/ListAdaptationRuns",
    f"GET {_R}/{{run_id}}": "AdaptationService/GetAdaptationRun",
    f"GET {_R}/{{run_id}}/crops": "AdaptationService/ListAdaptationRunCrops",
    f"GET {_R}/{{run_id}}/stream": "AdaptationService/StreamAdaptationCrops",
    f"POST {_R}/{{run_id}}/heartbeat": "AdaptationService/HeartbeatAdaptationRun",
    f"POST {_R}/{{run_id}}/report": "AdaptationService/ReportAdaptationRun",
    f"POST {_R}/{{run_id}}/check": "AdaptationService/CheckAdaptationCrops",
    f"POST {_R}/{{run_id}}/finish": "AdaptationService/FinishAdaptationRun",
    "POST /v1/keys": "AdminService/CreateApiKey",
    "GET /v1/keys": "AdminService/ListApiKeys",
    "POST /v1/keys/{key_id}/revoke": "AdminService/RevokeApiKey",
    "GET /v1/audit": "AdminService/ListAuditEntries",
    "POST /v1/audit/verify": "AdminService/VerifyAudit",
    f"POST {_E}": "AdminService/CreateErasure",
    f"GET {_E}": "AdminService/ListErasures",
    f"GET {_E}/{{erasure_id}}": "AdminService/GetErasure",
    f"GET {_E}/{{erasure_id}}/crops": "AdminService/ListErasureCrops",
    f"POST {_E}/{{erasure_id}}/confirm": "AdminService/ConfirmErasure",
    f"POST {_E}/{{erasure_id}}/cancel": "AdminService/CancelErasure",
    f"PUT {_G}/cameras/{{camera_id}}/retention": "AdminService/UpdateCameraRetention",
}


def gallery_free(rpc: str) -> bool:
    """Whether an RPC is about no gallery, so that galleries limit what it shows, not whether."""
    return rpc.removeprefix("AdminService/") in {
        "CreateApiKey", "ListApiKeys", "RevokeApiKey", "VerifyAudit",
    }  # fmt: skip


def body_of(schema: Any, components: Any) -> Any:
    """The least that a JSON body of a schema may be: its required fields, by kind."""
    if "$ref" in schema:
        return body_of(components[schema["$ref"].rpartition("/")[2]], components)
    if "anyOf" in schema:
        return body_of(schema["anyOf"][0], components)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        needed = schema.get("required", [])
        return {name: body_of(schema["properties"][name], components) for name in needed}
    if kind == "array":
        return [body_of(schema["items"], components)] if schema.get("minItems") else []
    if kind == "string":
        return "2026-01-01T00:00:00Z" if schema.get("format") == "date-time" else "x"
    return {"integer": 1, "number": 1.0, "boolean": False}[kind]
