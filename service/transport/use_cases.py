"""What the transports may call."""

from __future__ import annotations

from dataclasses import dataclass

from service.application.cameras import Cameras
from service.application.crops import Crops
from service.application.embed import Embed
from service.application.ingest import Ingest
from service.application.search import Search

__all__ = ["UseCases"]


@dataclass(frozen=True)
class UseCases:
    """The application, the same for gRPC and REST."""

    cameras: Cameras
    crops: Crops
    ingest: Ingest
    search: Search
    embed: Embed
