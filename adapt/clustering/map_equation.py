"""Infomap over the links of nearest neighbours (Rosvall and Bergstrom, PNAS 105, 2008).

A two-level partition of the directed graph in which crop i points at its neighbours j with the
weight of their cosine, where that is at least ``min_cosine``. Modules smaller than ``min_size`` and
crops without links are outliers.

The package ``infomap`` is under a copyleft licence, so it is an extra of its own that nothing else
installs, and is imported only when it is called for.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.neighbours import Neighbours
from resight.errors import FailedPrecondition

__all__ = ["infomap_labels", "require_infomap"]


def require_infomap() -> None:
    """Refuses, with what to do, where the package is not installed.

    Raises:
        FailedPrecondition: It is not.
    """
    if find_spec("infomap") is None:
        raise FailedPrecondition(
            "clustering=infomap needs the package infomap (GPL-3.0 or later), which no other part"
            " installs: pip install 'resight[infomap]', or use clustering=dbscan",
            field="clustering",
            reason="INFOMAP_MISSING",
        )


def infomap_labels(
    neighbours: Neighbours, *, min_cosine: float, min_size: int, seed: int
) -> NDArray[np.int32]:
    """Labels (N,), clusters from 0 numbered by their first row, -1 for outliers.

    Args:
        neighbours: Column 0 is the crop itself, -1 is nobody.
        min_cosine: Least weight of a link; links of weight 0 or less are never made.
        min_size: Smallest module that is a cluster.
        seed: Of Infomap's random order.

    Raises:
        FailedPrecondition: The package is not installed.
    """
    require_infomap()
    import infomap

    linked = (neighbours.indices >= 0) & (neighbours.similarities >= min_cosine)
    linked &= neighbours.similarities > 0
    linked[:, :1] = False
    labels = np.full(len(neighbours), -1, dtype=np.int32)
    if not linked.any():
        return labels
    links = np.empty((int(linked.sum()), 3))
    links[:, 0] = np.nonzero(linked)[0]
    links[:, 1] = neighbours.indices[linked]
    links[:, 2] = neighbours.similarities[linked]
    network = infomap.Network()
    network.add_links(links)
    options = infomap.Options(two_level=True, flow_model="directed", seed=seed, silent=True)
    modules = dict(network.run(options=options).modules())
    rows = np.fromiter(modules.keys(), dtype=np.int64, count=len(modules))
    found = np.fromiter(modules.values(), dtype=np.int64, count=len(modules))
    order = np.argsort(rows)
    rows, found = rows[order], found[order]
    _, first, module, sizes = np.unique(
        found, return_index=True, return_inverse=True, return_counts=True
    )
    large = np.flatnonzero(sizes >= min_size)
    numbers = np.full(len(sizes), -1, dtype=np.int32)
    numbers[large[np.argsort(first[large])]] = np.arange(len(large))
    labels[rows] = numbers[module]
    return labels
