"""How often being a neighbour is mutual (Jegou et al., CVPR 2007; Zhong et al., CVPR 2017).

    F(i) = the k crops nearest to i
    rate = #{(i, j): j in F(i), i in F(j)} / #{(i, j): j in F(i)}                    in [0, 1]

A crop and the same person's crops at other cameras choose each other; a crop and whoever happens to
look like it do not. Taken across cameras, of centred features. Within a camera the share says
little, since neighbouring frames choose each other whatever the encoder: without cameras it is not
taken.
"""

from __future__ import annotations

import numpy as np

from adapt.gate.view import Lists, View

__all__ = ["mutual_share", "reciprocity"]

_K = 5


def reciprocity(view: View) -> float | None:
    """The rate across cameras at k = 5; None without cameras."""
    if view.cameras is None:
        return None
    return mutual_share(view.centred_across, _K)


def mutual_share(lists: Lists, k: int) -> float:
    """The rate of the first ``k`` columns; 0 where nobody has a neighbour."""
    indices = lists.indices[:, :k]
    rows = len(indices)
    own = np.repeat(np.arange(rows, dtype=np.int64), indices.shape[1])
    other = indices.reshape(-1).astype(np.int64)
    own, other = own[other >= 0], other[other >= 0]
    if not len(own):
        return 0.0
    mutual = np.isin(own * rows + other, other * rows + own)
    return float(mutual.mean())
