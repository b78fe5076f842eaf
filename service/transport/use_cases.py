"""What the transports may call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from service.application.adaptation import Adaptation
from service.application.api_keys import ApiKeys
from service.application.application import Application
from service.application.auditing import Auditing
from service.application.camera_retention import CameraRetention
from service.application.cameras import Cameras
from service.application.crop_stream import CropStream
from service.application.crops import Crops
from service.application.embed import Embed
from service.application.erasure.erasures import Erasures
from service.application.ingest import Ingest
from service.application.lifecycle import Lifecycle
from service.application.registry import Registry
from service.application.run_records import RunRecords
from service.application.search import Search
from service.application.search_batch import SearchBatch
from service.application.track_person import TrackPerson
from service.application.travel_times import TravelTimes
from service.verification.running import Verification

__all__ = ["UseCases"]


@dataclass(frozen=True)
class UseCases:
    """The application, the same for gRPC and REST."""

    cameras: Cameras
    crops: Crops
    ingest: Ingest
    search: Search
    search_batch: SearchBatch
    track_person: TrackPerson
    travel_times: TravelTimes
    embed: Embed
    adaptation: Adaptation
    runs: RunRecords
    crop_stream: CropStream
    registry: Registry
    lifecycle: Lifecycle
    verification: Verification
    api_keys: ApiKeys
    auditing: Auditing
    erasures: Erasures
    camera_retention: CameraRetention

    @classmethod
    def of(cls, application: Application) -> Self:
        """Those of an application that is open."""
        return cls(
            cameras=application.cameras,
            crops=application.crops,
            ingest=application.ingest,
            search=application.search,
            search_batch=application.search_batch,
            track_person=application.track_person,
            travel_times=application.travel_times,
            embed=application.embed,
            adaptation=application.adaptation,
            runs=application.runs,
            crop_stream=application.crop_stream,
            registry=application.registry,
            lifecycle=application.models.lifecycle,
            verification=application.verification,
            api_keys=application.api_keys,
            auditing=application.auditing,
            erasures=application.erasures,
            camera_retention=application.camera_retention,
        )
