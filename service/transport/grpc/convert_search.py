"""Between the messages of the search service and the domain's values."""

from __future__ import annotations

from resight.v1 import search_service_pb2
from service.domain.query import SearchAnswer, SearchMode, SearchQuery
from service.transport.grpc.convert import fill_crop
from service.transport.grpc.convert_examples import Examples, fusion, query_embedding
from service.transport.grpc.convert_filter import crop_filter, own_camera_rule

__all__ = ["search_query", "search_response"]

_MODES = {
    SearchMode.EXACT_SCAN: search_service_pb2.SEARCH_MODE_EXACT_SCAN,
    SearchMode.EXACT_GATHER: search_service_pb2.SEARCH_MODE_EXACT_GATHER,
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
        filter=crop_filter(request.filter),
        own_camera=own_camera_rule(request),
        deadline=deadline,
    )


def search_response(answer: SearchAnswer) -> search_service_pb2.SearchResponse:
    """The ranked matches."""
    response = search_service_pb2.SearchResponse(
        model_version=answer.model_version,
        mode=_MODES[answer.mode],
        rows_scanned=answer.rows_scanned,
        rows_total=answer.rows_total,
        index_lag_seconds=answer.index_lag_seconds,
        next_page_token=answer.next_page_token,
    )
    for match in answer.matches:
        added = response.matches.add(score=match.score, probability=match.probability)
        fill_crop(added.crop, match.crop)
    return response
