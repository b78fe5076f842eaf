"""Calls of one gallery that name something, which may be another gallery's or nobody's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np

from resight.v1 import adaptation_service_pb2 as runs
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import CropFilter, Embedding
from tests.e2e.isolation.two_galleries import OURS, THEIR_CAMERA, Sites, item

NOBODY = str(UUID(int=10**30))
NO_CAMERA = "attic"


def with_crop(sites: Sites, crop_id: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection
    ours = {"gallery": OURS}
    mine = search.Example(crop_id=sites.shared[0])
    other = search.Example(crop_id=crop_id)
    return {
        "get": lambda: here.gallery.GetCrop(gallery.GetCropRequest(**ours, crop_id=crop_id)),
        "image": lambda: here.gallery.GetCrop(
            gallery.GetCropRequest(**ours, crop_id=crop_id, include_image=True)
        ),
        "delete": lambda: here.gallery.DeleteCrop(
            gallery.DeleteCropRequest(**ours, crop_id=crop_id)
        ),
        "search": lambda: here.search.Search(search.SearchRequest(**ours, crop_id=crop_id)),
        "positive": lambda: here.search.Search(
            search.SearchRequest(**ours, positives=[mine, other])
        ),
        "negative": lambda: here.search.Search(
            search.SearchRequest(**ours, positives=[mine], negatives=[other])
        ),
        "nearest": lambda: here.search.Search(
            search.SearchRequest(**ours, positives=[mine, other], fusion=search.FUSION_MAX)
        ),
        "batch": lambda: here.search.SearchBatch(
            search.SearchBatchRequest(queries=[search.SearchRequest(gallery=OURS, crop_id=crop_id)])
        ),
        "track": lambda: here.search.TrackPerson(
            search.TrackPersonRequest(
                query=search.SearchRequest(**ours, crop_id=crop_id, min_score=0.0)
            )
        ),
    }


def with_camera(sites: Sites, camera: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection
    image = sites.image(7500)
    hop = search.TravelTime(
        from_camera_id="door", to_camera_id=camera, min_seconds=1, typical_seconds=2, max_seconds=3
    )
    return {
        "include": lambda: here.search.Search(
            search.SearchRequest(
                gallery=OURS, image=image, filter=CropFilter(include_camera_ids=[camera])
            )
        ),
        "exclude": lambda: here.search.Search(
            search.SearchRequest(
                gallery=OURS, image=image, filter=CropFilter(exclude_camera_ids=[camera])
            )
        ),
        "list": lambda: here.gallery.ListCrops(
            gallery.ListCropsRequest(gallery=OURS, filter=CropFilter(include_camera_ids=[camera]))
        ),
        "own camera": lambda: here.search.Search(
            search.SearchRequest(
                gallery=OURS,
                image=image,
                own_camera=search.OWN_CAMERA_EXCLUDE,
                query_camera_id=camera,
            )
        ),
        "ingest": lambda: here.gallery.IngestCrops(
            iter([item(OURS, 5, "", sites.image(7500), camera=camera)])
        ),
        "travel times": lambda: here.search.TrackPerson(
            search.TrackPersonRequest(
                query=search.SearchRequest(gallery=OURS, image=image, min_score=0.0),
                travel_times=[hop],
            )
        ),
        "stream": lambda: here.adaptation.StreamAdaptationCrops(
            runs.StreamAdaptationCropsRequest(**sites.our_run, camera_ids=[camera])
        ),
    }


def with_run(sites: Sites, run_id: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection.adaptation
    held = {"gallery": OURS, "run_id": run_id, "lease_token": sites.their_run["lease_token"]}
    named = {"gallery": OURS, "run_id": run_id}
    failed = runs.AdaptationRun.STATE_FAILED
    return {
        "get": lambda: here.GetAdaptationRun(runs.GetAdaptationRunRequest(**named)),
        "crops": lambda: here.ListAdaptationRunCrops(runs.ListAdaptationRunCropsRequest(**named)),
        "stream": lambda: here.StreamAdaptationCrops(runs.StreamAdaptationCropsRequest(**held)),
        "heartbeat": lambda: here.HeartbeatAdaptationRun(
            runs.HeartbeatAdaptationRunRequest(**held)
        ),
        "report": lambda: here.ReportAdaptationRun(runs.ReportAdaptationRunRequest(**held)),
        "finish": lambda: here.FinishAdaptationRun(
            runs.FinishAdaptationRunRequest(**held, state=failed)
        ),
        "register": lambda: sites.connection.models.RegisterModel(
            iter(
                [
                    models.RegisterModelRequest(
                        upload=models.ModelUpload(**held, sha256=bytes(32), size_bytes=100)
                    )
                ]
            )
        ),
    }


def with_model(sites: Sites, version: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection
    vector = np.full(96, 96**-0.5, "<f4").tobytes()
    known = Embedding(values=vector, dimension=96, model_version=version)
    return {
        "get": lambda: here.models.GetModel(
            models.GetModelRequest(gallery=OURS, model_version=version)
        ),
        "search": lambda: here.search.Search(search.SearchRequest(gallery=OURS, embedding=known)),
    }


KINDS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[Sites], tuple[str, str]]]] = {
    "crop": (with_crop, lambda sites: (sites.secret[3], NOBODY)),
    "camera": (with_camera, lambda _: (THEIR_CAMERA, NO_CAMERA)),
    "run": (with_run, lambda sites: (sites.their_run["run_id"], NOBODY)),
    "model": (with_model, lambda sites: (sites.their_model, "0" * len(sites.their_model))),
}
