"""Everything that answers a query put together: one search, and what is built on it."""

from __future__ import annotations

import faiss

from service.application.embed import Embed
from service.application.foundation import Foundation
from service.application.mirror import Mirror
from service.application.search import Search
from service.application.search_batch import SearchBatch
from service.application.track_person import TrackPerson
from service.application.travel_times import TravelTimes
from service.context_threads import ContextThreads
from service.settings import ServiceSettings

__all__ = ["Searching"]


class Searching:
    """The searches of all galleries; ``close`` at the end.

    Args:
        settings: The service's.
        foundation: What they stand on.
        mirror: Is offered what was searched for.
    """

    def __init__(
        self, settings: ServiceSettings, foundation: Foundation, *, mirror: Mirror
    ) -> None:
        catalog, galleries, limits = foundation.catalog, foundation.galleries, settings.limits
        # faiss keeps its thread count by calling thread.
        self._threads = ContextThreads(
            1, "search", initializer=faiss.omp_set_num_threads, initargs=(1,)
        )
        self.embed = Embed(galleries=galleries, limits=limits)
        self.search = Search(
            catalog=catalog,
            galleries=galleries,
            embed=self.embed,
            fence=foundation.replication.fence,
            search_threads=self._threads,
            limits=limits,
            mirror=mirror.offer,
            record_matches=settings.audit.record_matches,
        )
        self.travel_times = TravelTimes(
            catalog=catalog,
            galleries=galleries,
            clock=foundation.clock,
            settings=settings.travel_times,
        )
        self.track_person = TrackPerson(
            search=self.search, galleries=galleries, travel_times=self.travel_times, limits=limits
        )
        self.search_batch = SearchBatch(search=self.search, limits=limits)

    def close(self) -> None:
        """Search no more. Blocking."""
        self.search.close()
        self._threads.shutdown()
