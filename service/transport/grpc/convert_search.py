"""Between the messages of the search service and the domain's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resight.errors import InvalidArgument, ResightError
from resight.v1 import search_service_pb2
from service.domain.groups import GroupBy
from service.domain.query import Match, SearchAnswer, SearchMode, SearchQuery
from service.domain.rerank import Rerank
from service.hidden_detail import logged
from service.transport.grpc.convert import fill_crop
from service.transport.grpc.convert_examples import Examples, fusion, query_embedding
from service.transport.grpc.convert_filter import crop_filter, own_camera_rule
from service.transport.search_metrics import counted
from service.transport.status import status_of

__all__ = ["add_matches", "mode_value", "search_query", "search_response", "search_result"]

_MODES = {
    SearchMode.EXACT_SCAN: search_service_pb2.SEARCH_MODE_EXACT_SCAN,
    SearchMode.EXACT_GATHER: search_service_pb2.SEARCH_MODE_EXACT_GATHER,
}

_GROUPS: dict[int, GroupBy] = {
    search_service_pb2.GROUP_BY_UNSPECIFIED: GroupBy.NOTHING,
    search_service_pb2.GROUP_BY_CAMERA: GroupBy.CAMERA,
    search_service_pb2.GROUP_BY_TRACK: GroupBy.TRACK,
}


def search_query(
    request: search_service_pb2.SearchRequest, *, deadline: float | None
) -> SearchQuery:
    """The query; its ``oneof`` may be unset, which the application refuses."""
    kind = request.WhichOneof("query")
    return SearchQuery(
        gallery=request.gallery,
        image=request.image if kind == "image" else None,
        crop_id=request.crop_id if kind == "crop_id" else None,
        embedding=query_embedding(request.embedding) if kind == "embedding" else None,
        top_k=request.top_k if request.HasField("top_k") else None,
        min_score=request.min_score if request.HasField("min_score") else None,
        min_probability=request.min_probability if request.HasField("min_probability") else None,
        page_token=request.page_token,
        positives=Examples(request.positives, "positives"),
        negatives=Examples(request.negatives, "negatives"),
        fusion=fusion(request.fusion),
        group_by=_group_by(request.group_by),
        group_size=request.group_size if request.HasField("group_size") else None,
        rerank=_rerank(request.rerank) if request.HasField("rerank") else None,
        filter=crop_filter(request.filter),
        own_camera=own_camera_rule(request),
        deadline=deadline,
    )


def search_response(
    answer: SearchAnswer, *, group_by: GroupBy = GroupBy.NOTHING
) -> search_service_pb2.SearchResponse:
    """The ranked matches."""
    response = search_service_pb2.SearchResponse(
        model_version=answer.model_version,
        mode=_MODES[answer.mode],
        rows_scanned=answer.rows_scanned,
        rows_total=answer.rows_total,
        index_lag_seconds=answer.index_lag_seconds,
        next_page_token=answer.next_page_token,
    )
    add_matches(response.matches, answer.matches)
    by_track = group_by is GroupBy.TRACK
    for matches in answer.groups:
        crop = matches[0].crop
        group = response.groups.add(
            camera_id=crop.camera_id, track_id=crop.track_id if by_track else ""
        )
        add_matches(group.matches, matches)
    return response


def mode_value(mode: SearchMode) -> search_service_pb2.SearchMode.ValueType:
    """How rows were searched."""
    return _MODES[mode]


def search_result(
    answer: SearchAnswer | ResightError, query: SearchQuery | ResightError
) -> search_service_pb2.SearchBatchResult:
    """The answer to a query of a batch, or why there is none."""
    if isinstance(answer, SearchAnswer) and isinstance(query, SearchQuery):
        response = search_response(counted(answer), group_by=query.group_by)
        return search_service_pb2.SearchBatchResult(response=response)
    error = answer if isinstance(answer, ResightError) else ResightError("no answer")
    return search_service_pb2.SearchBatchResult(
        error=search_service_pb2.SearchError(
            code=status_of(error).grpc.value[0],
            reason=error.reason,
            field=error.field,
            message=logged(error).message,
        )
    )


def add_matches(messages: Any, matches: Sequence[Match]) -> None:
    """Append matches to a repeated field of ``Match``."""
    for match in matches:
        added = messages.add(
            score=match.score,
            probability=match.probability,
            rerank_distance=match.rerank_distance,
            model_version=match.model_version,
        )
        fill_crop(added.crop, match.crop)


def _rerank(message: search_service_pb2.Rerank) -> Rerank:
    return Rerank(
        candidates=message.candidates if message.HasField("candidates") else None,
        k1=message.k1 if message.HasField("k1") else None,
        k2=message.k2 if message.HasField("k2") else None,
        original_weight=message.original_weight if message.HasField("original_weight") else None,
    )


def _group_by(value: int) -> GroupBy:
    if value not in _GROUPS:
        raise InvalidArgument(
            f"group_by {value} is unknown to this version; send CAMERA or TRACK", field="group_by"
        )
    return _GROUPS[value]
