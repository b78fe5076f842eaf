"""What the pseudo-labels of a replay sample are worth, by how it was drawn.

::

    python -m bench replay_labels --market DIR --work RUNS

after ``bench replay``, whose night-1 encoder on Market-1501's cameras 1 to 3 it uses: samples of
their training crops are drawn in stretches of several lengths, embedded and clustered as a night
clusters them, alone. Prints a line for each: crops, clusters, crops in them, adjusted mutual
information with the identities, and the mean share of a cluster's pairs that are of one person.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from adapt.evaluation.embedding import embed_refs
from adapt.methods.grouping import group
from adapt.training.resolve import resolve
from bench.replay import market_rows, replayed
from resight.bundle import open_bundle
from resight.crops import CropRef


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench replay_labels", description=__doc__)
    parser.add_argument("--market", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[398, 1327])
    parser.add_argument("--stretches", type=int, nargs="+", default=[1, 64, 256, 1024, 4096])
    options = parser.parse_args(argv)
    root: Path = options.work / "market"
    older = market_rows(root, "A", options.market)["train"]
    bundle = open_bundle(options.work / "runs" / "market-fast-s1-night-1" / "bundle", golden=False)
    for size in options.sizes:
        for stretch in options.stretches:
            rows = replayed(older, size, seed=1, stretch=stretch)
            refs = [CropRef(path=root / row["path"], camera=row["camera"]) for row in rows]
            features = embed_refs(bundle, refs).features
            cameras = np.unique([row["camera"] for row in rows], return_inverse=True)[1]
            found = group(features, resolve(options={"preset": "fast"}), cameras.astype(np.int32))
            people = np.array([row["identity"] for row in rows])
            clustered = found.labels >= 0
            clusters = [people[found.labels == label] for label in range(found.clusters)]
            line = {
                "crops": size,
                "stretch": stretch,
                "clusters": found.clusters,
                "in_clusters": int(clustered.sum()),
                "mutual_information": round(
                    adjusted_mutual_info_score(people[clustered], found.labels[clustered]), 3
                ),
                "pairs_of_one_person": round(
                    float(np.mean([(who[:, None] == who).mean() for who in clusters])), 3
                ),
            }
            print(json.dumps(line), flush=True)
    return 0
