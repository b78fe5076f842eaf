"""How crops are grouped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from adapt.clustering.radius import LARGEST, REACH
from adapt.clustering.reciprocal import Convention, neighbour_columns
from resight.errors import InvalidArgument

__all__ = ["MAX_NEIGHBOURS", "ClusterSettings", "Distance", "Neighbourhood"]

Distance = Literal["jaccard", "ca-jaccard"]
Neighbourhood = Literal["auto", "exact", "approximate"]

MAX_NEIGHBOURS = 1000


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """How crops are grouped.

    Attributes:
        distance: ``jaccard`` is the k-reciprocal Jaccard distance, ``ca-jaccard`` its
            camera-aware form, which needs the camera of every crop.
        k1: size of the k-reciprocal neighbourhood, 1 to 1000.
        k2: neighbours averaged in the local query expansion, 1 to k1.
        k1_intra, k1_inter: in their place with ``ca-jaccard``: sizes of the neighbourhoods within
            the crop's camera and in the others, 1 to 1000.
        k2_intra, k2_inter: crops averaged there, from the crop's camera (itself included), 1 to
            k1_intra + 1, and from the others, 0 to k1_inter.
        eps: DBSCAN radius as a Jaccard distance, 0 < eps < 1, or ``auto``: chosen from the data,
            see :mod:`adapt.clustering.radius`.
        min_samples: crops within ``eps``, itself included, that make a core.
        gap: the graph reaches to ``eps + gap``, so that ``ClusterResult.labels_at`` can cluster
            more loosely (SpCL's self-paced criterion) without a second search.
        neighbours: ``exact``, ``approximate`` (see :mod:`adapt.clustering.cell_search`), or
            ``auto``: approximate above ``approximate_above`` crops, unless an exact search of
            the caller's (a GPU's) is at hand.
        approximate_above: crops.
        neighbour_recall: share of the exact neighbours that the approximate search must find,
            above 0 and at most 1.
        convention: how the k1 count, see :mod:`adapt.clustering.reciprocal` and
            :mod:`adapt.clustering.camera_aware`.
    """

    distance: Distance = "jaccard"
    k1: int = 30
    k2: int = 6
    k1_intra: int = 5
    k1_inter: int = 20
    k2_intra: int = 2
    k2_inter: int = 4
    eps: float | Literal["auto"] = 0.6
    min_samples: int = 4
    gap: float = 0.0
    neighbours: Neighbourhood = "auto"
    approximate_above: int = 200_000
    neighbour_recall: float = 0.98
    convention: Convention = "released"

    def __post_init__(self) -> None:
        for name, kind in (("distance", Distance), ("neighbours", Neighbourhood)):
            if getattr(self, name) not in get_args(kind):
                raise _outside(name, getattr(self, name), f"one of {', '.join(get_args(kind))}")
        if self.approximate_above < 0:
            raise _outside("approximate_above", self.approximate_above, "at least 0")
        if not 0.0 < self.neighbour_recall <= 1.0:
            raise _outside("neighbour_recall", self.neighbour_recall, "above 0 and at most 1")
        for name in ("k1", "k1_intra", "k1_inter"):
            if not 1 <= getattr(self, name) <= MAX_NEIGHBOURS:
                raise _outside(name, getattr(self, name), f"between 1 and {MAX_NEIGHBOURS}")
        if not 1 <= self.k2 <= self.k1:
            raise _outside("k2", self.k2, f"between 1 and k1 ({self.k1})")
        if not 1 <= self.k2_intra <= self.k1_intra + 1:
            raise _outside(
                "k2_intra", self.k2_intra, f"between 1 and k1_intra + 1 ({self.k1_intra + 1})"
            )
        if not 0 <= self.k2_inter <= self.k1_inter:
            raise _outside("k2_inter", self.k2_inter, f"between 0 and k1_inter ({self.k1_inter})")
        if not 0.0 < self.largest_eps < 1.0:
            raise _outside("eps", self.eps, "between 0 and 1, both excluded: a Jaccard distance")
        if not (self.gap >= 0.0 and self.largest_eps + self.gap < 1.0):
            limit = 1.0 - self.largest_eps
            raise _outside("gap", self.gap, f"from 0 to less than 1 - eps ({limit:g})")
        if self.min_samples < 1:
            raise _outside("min_samples", self.min_samples, "at least 1")
        neighbour_columns(self.k1, self.convention)

    @property
    def largest_eps(self) -> float:
        """The largest radius that ``eps`` can stand for."""
        return LARGEST if self.eps == "auto" else self.eps

    @property
    def reach(self) -> float:
        """Largest distance that the graph must hold while clusters are made."""
        wanted = self.largest_eps + self.gap
        return max(wanted, REACH) if self.eps == "auto" else wanted

    @property
    def columns(self) -> int:
        """Neighbours to search for with ``jaccard``, the crop itself included."""
        return neighbour_columns(self.k1, self.convention)


def _outside(name: str, value: object, bounds: str) -> InvalidArgument:
    return InvalidArgument(f"{name}: is {value}; it must be {bounds}", field=name)
