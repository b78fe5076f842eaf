"""Which scopes let a caller do what. Whatever stands in no row is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from resight.errors import PermissionDenied
from service.domain.principal import Principal, Scope

__all__ = ["RIGHTS", "ROUTES", "authorise", "mirrored", "require_whole"]

_SEARCH: tuple[Scope, ...] = ("search",)
_INGEST: tuple[Scope, ...] = ("ingest", "admin")
_SITE: tuple[Scope, ...] = ("search", "ingest", "models", "admin")
_MODELS: tuple[Scope, ...] = ("models", "admin")
_ADMIN: tuple[Scope, ...] = ("admin",)
_AUDIT: tuple[Scope, ...] = ("audit",)
_OVERSIGHT: tuple[Scope, ...] = ("admin", "audit")

# By RPC: any one of the scopes is enough.
RIGHTS: Mapping[str, tuple[Scope, ...]] = MappingProxyType(
    {
        "SearchService/Search": _SEARCH,
        "SearchService/SearchBatch": _SEARCH,
        "SearchService/TrackPerson": _SEARCH,
        "SearchService/GetTravelTimes": _SEARCH,
        "SearchService/LearnTravelTimes": _SEARCH,
        "EmbedService/Embed": _SEARCH,
        "GalleryService/CreateCamera": _INGEST,
        "GalleryService/ListCameras": _SITE,
        "GalleryService/IngestCrops": _INGEST,
        "GalleryService/GetCrop": _SEARCH,
        "GalleryService/ListCrops": _SEARCH,
        "GalleryService/DeleteCrop": _ADMIN,
        "GalleryService/GetGalleryStats": _SITE,
        "GalleryService/VerifyGallery": _ADMIN,
        "ModelService/RegisterModel": _MODELS,
        "ModelService/GetModel": _MODELS,
        "ModelService/ListModels": _MODELS,
        "ModelService/StageModel": _MODELS,
        "ModelService/PromoteModel": _MODELS,
        "ModelService/RollbackModel": _MODELS,
        "ModelService/RetireModel": _MODELS,
        "ModelService/PauseFilling": _MODELS,
        "ModelService/ResumeFilling": _MODELS,
        "AdaptationService/StartAdaptationRun": _MODELS,
        "AdaptationService/StreamAdaptationCrops": _MODELS,
        "AdaptationService/HeartbeatAdaptationRun": _MODELS,
        "AdaptationService/ReportAdaptationRun": _MODELS,
        "AdaptationService/CheckAdaptationCrops": _MODELS,
        "AdaptationService/FinishAdaptationRun": _MODELS,
        "AdaptationService/GetAdaptationRun": _MODELS,
        "AdaptationService/ListAdaptationRuns": _MODELS,
        "AdaptationService/ListAdaptationRunCrops": _MODELS,
        "AdminService/CreateApiKey": _ADMIN,
        "AdminService/ListApiKeys": _ADMIN,
        "AdminService/RevokeApiKey": _ADMIN,
        "AdminService/ListAuditEntries": _AUDIT,
        "AdminService/VerifyAudit": _AUDIT,
        "AdminService/CreateErasure": _ADMIN,
        "AdminService/ListErasureCrops": _OVERSIGHT,
        "AdminService/ConfirmErasure": _ADMIN,
        "AdminService/CancelErasure": _ADMIN,
        "AdminService/GetErasure": _OVERSIGHT,
        "AdminService/ListErasures": _OVERSIGHT,
        "AdminService/UpdateCameraRetention": _ADMIN,
    }
)

_GALLERY = "/v1/galleries/{gallery}"
_MODEL = f"{_GALLERY}/models/{{model_version}}"
_RUNS = f"{_GALLERY}/adaptation-runs"
_RUN = f"{_RUNS}/{{run_id}}"
_ERASURES = f"{_GALLERY}/erasures"
_ERASURE = f"{_ERASURES}/{{erasure_id}}"

# By verb and template of a REST route: the RPC it mirrors.
ROUTES: Mapping[str, str] = MappingProxyType(
    {
        f"POST {_GALLERY}/search": "SearchService/Search",
        f"POST {_GALLERY}/search-batch": "SearchService/SearchBatch",
        f"POST {_GALLERY}/track": "SearchService/TrackPerson",
        f"GET {_GALLERY}/travel-times": "SearchService/GetTravelTimes",
        f"POST {_GALLERY}/travel-times": "SearchService/LearnTravelTimes",
        f"POST {_GALLERY}/embed": "EmbedService/Embed",
        f"POST {_GALLERY}/cameras": "GalleryService/CreateCamera",
        f"GET {_GALLERY}/cameras": "GalleryService/ListCameras",
        f"POST {_GALLERY}/crops": "GalleryService/IngestCrops",
        f"GET {_GALLERY}/crops": "GalleryService/ListCrops",
        f"GET {_GALLERY}/crops/{{crop_id}}": "GalleryService/GetCrop",
        f"GET {_GALLERY}/crops/{{crop_id}}/image": "GalleryService/GetCrop",
        f"DELETE {_GALLERY}/crops/{{crop_id}}": "GalleryService/DeleteCrop",
        f"GET {_GALLERY}/stats": "GalleryService/GetGalleryStats",
        f"POST {_GALLERY}/verify": "GalleryService/VerifyGallery",
        f"POST {_GALLERY}/models": "ModelService/RegisterModel",
        f"GET {_GALLERY}/models": "ModelService/ListModels",
        f"POST {_GALLERY}/models/rollback": "ModelService/RollbackModel",
        f"GET {_MODEL}": "ModelService/GetModel",
        f"POST {_MODEL}/stage": "ModelService/StageModel",
        f"POST {_MODEL}/promote": "ModelService/PromoteModel",
        f"POST {_MODEL}/retire": "ModelService/RetireModel",
        f"POST {_MODEL}/filling/pause": "ModelService/PauseFilling",
        f"POST {_MODEL}/filling/resume": "ModelService/ResumeFilling",
        f"POST {_RUNS}": "AdaptationService/StartAdaptationRun",
        f"GET {_RUNS}": "AdaptationService/ListAdaptationRuns",
        f"GET {_RUN}": "AdaptationService/GetAdaptationRun",
        f"GET {_RUN}/crops": "AdaptationService/ListAdaptationRunCrops",
        f"GET {_RUN}/stream": "AdaptationService/StreamAdaptationCrops",
        f"POST {_RUN}/heartbeat": "AdaptationService/HeartbeatAdaptationRun",
        f"POST {_RUN}/report": "AdaptationService/ReportAdaptationRun",
        f"POST {_RUN}/check": "AdaptationService/CheckAdaptationCrops",
        f"POST {_RUN}/finish": "AdaptationService/FinishAdaptationRun",
        "POST /v1/keys": "AdminService/CreateApiKey",
        "GET /v1/keys": "AdminService/ListApiKeys",
        "POST /v1/keys/{key_id}/revoke": "AdminService/RevokeApiKey",
        "GET /v1/audit": "AdminService/ListAuditEntries",
        "POST /v1/audit/verify": "AdminService/VerifyAudit",
        f"POST {_ERASURES}": "AdminService/CreateErasure",
        f"GET {_ERASURES}": "AdminService/ListErasures",
        f"GET {_ERASURE}": "AdminService/GetErasure",
        f"GET {_ERASURE}/crops": "AdminService/ListErasureCrops",
        f"POST {_ERASURE}/confirm": "AdminService/ConfirmErasure",
        f"POST {_ERASURE}/cancel": "AdminService/CancelErasure",
        f"PUT {_GALLERY}/cameras/{{camera_id}}/retention": "AdminService/UpdateCameraRetention",
    }
)

# What is about all crops of a gallery at once, so that somebody who sees only some may not do it:
# a run takes the gallery's lease, moves its window and counts its crops, a promotion changes
# everybody's answers, an audit entry or an erasure names crops of any camera.
_WHOLE = frozenset({
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
})  # fmt: skip


def _pattern(route: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(route)))


_PATTERNS = [(_pattern(route), method) for route, method in ROUTES.items()]


def mirrored(verb: str, path: str) -> str:
    """The RPC that a REST request mirrors, which no route has taken yet; empty for none."""
    asked = f"{verb} {path}"
    return next((method for pattern, method in _PATTERNS if pattern.fullmatch(asked)), "")


def authorise(principal: Principal, method: str) -> None:
    """Let a caller go on to an RPC.

    Raises:
        PermissionDenied: none of their scopes allows it, or it is about more crops than they see.
    """
    needed = RIGHTS.get(method, ())
    if principal.scopes.isdisjoint(needed):
        wanted = " or ".join(repr(scope) for scope in needed) or "a scope that nobody has"
        raise PermissionDenied(
            f"{principal.name} may not call {method}; it needs scope {wanted}",
            field="authorization",
            reason="SCOPE_MISSING",
        )
    if principal.is_limited and method in _WHOLE:
        raise PermissionDenied(
            f"{principal.name} may not call {method}: it is about all crops of a gallery, and they "
            "are limited to some cameras or a time",
            field="authorization",
            reason="LIMITED_CALLER",
        )


def require_whole(principal: Principal, what: str) -> None:
    """Refuse what names galleries and cameras of all to whoever is limited to some.

    Raises:
        PermissionDenied: they are.
    """
    if principal.is_limited or principal.galleries is not None:
        raise PermissionDenied(
            f"{principal.name} may not read {what}: it is about all galleries and cameras, and "
            "they are limited to some; use a key without limits",
            field="authorization",
            reason="LIMITED_CALLER",
        )
