"""What a bundle's attachments are worth, against the truth that fitting them never sees.

For two bundles of Market-1501, an older encoder's and a newer one's::

    python -m bench attachments --old B --new B --market DIR --cache DIR [--threads 2]

prints one JSON object: how fp16 and INT8 graphs of each rank 1,000 training crops; what a vector
map old to new reaches on held-out crops and in mAP; and how often pairs between cameras that a
calibration gives a probability do show one person. Identities in the names are read for the latter
two and, where it says "tracklets", to tell tracks (identity, camera, sequence), which Market-1501
does not have. Embeddings are kept in ``--cache``, so that a run cut short goes on.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.cluster import cluster
from adapt.clustering.settings import ClusterSettings
from adapt.evaluation.market import evaluate_ranking
from adapt.export.calibration import calibrate, reliability
from adapt.export.cluster_pairs import choose_clustered, cluster_pairs, cluster_prior
from adapt.export.int8 import quantise
from adapt.export.pairs import LabelFreePairs, choose_crops, tracklet_pairs
from adapt.export.rank_agreement import compare_ranking, embed_in_batches
from adapt.export.sightings import Sightings
from adapt.export.vector_map import fit_vector_map
from resight.bundle import Bundle, open_bundle
from resight.bundle.calibration import Calibration
from resight.bundle.graph_session import GraphSession
from resight.bundle.half_check import RoundedSession
from resight.bundle.half_precision import to_half
from resight.crops import prepare

_NAME = re.compile(r"(-?\d+)_c(\d)s(\d)_(\d+)")
_SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_RANKED = 1000
_CROPS = 512
_PAIRS = 3_000_000
_EDGES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench attachments", description=__doc__)
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--new", type=Path, required=True)
    parser.add_argument("--market", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(argv)
    options.cache.mkdir(parents=True, exist_ok=True)
    market = _Market(options.market, options.cache, options.threads)
    old, new = open_bundle(options.old), open_bundle(options.new)
    result = {
        "old": old.model_version,
        "new": new.model_version,
        "graphs": {name: _graphs(market, b) for name, b in (("old", old), ("new", new))},
        "vector_map": _vector_map(market, old, new),
        "calibration": {name: _calibrations(market, b) for name, b in (("old", old), ("new", new))},
    }
    print(json.dumps(_rounded(result), indent=1))
    return 0


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 5) if isinstance(value, float) else value


class _Market:
    """The crops' names, and their embeddings by each encoder."""

    def __init__(self, folder: Path, cache: Path, threads: int) -> None:
        self._cache, self._threads = cache, threads
        self.paths = {
            split: sorted((folder / name).glob("*.jpg")) for split, name in _SPLITS.items()
        }
        self.names = {split: _parsed(paths) for split, paths in self.paths.items()}

    def pixels(self, bundle: Bundle, paths: Sequence[Path]) -> NDArray[np.uint8]:
        return np.stack([prepare(path.read_bytes(), bundle.preprocessing) for path in paths])

    def embeddings(self, bundle: Bundle, split: str) -> NDArray[np.float32]:
        kept = self._cache / f"{bundle.model_version}-{split}.npy"
        if not kept.exists():
            session = GraphSession(bundle.encoder_path.read_bytes(), bundle.preprocessing)
            paths = self.paths[split]
            parts = [paths[start : start + 64] for start in range(0, len(paths), 64)]
            with ThreadPoolExecutor(self._threads) as pool:
                found = pool.map(lambda part: session.embed(self.pixels(bundle, part)), parts)
                vectors = np.concatenate(list(found))
            np.save(kept, vectors)
        loaded: NDArray[np.float32] = np.load(kept)
        return loaded


def _parsed(paths: Sequence[Path]) -> NDArray[np.int64]:
    """(N, 4): identity, camera, sequence, frame."""
    matches = [_NAME.match(path.name) for path in paths]
    return np.array([[int(part) for part in match.groups()] for match in matches if match])


def _graphs(market: _Market, bundle: Bundle) -> dict[str, Any]:
    paths = market.paths["train"]
    order = np.random.default_rng(0).permutation(len(paths))
    held = market.pixels(bundle, [paths[row] for row in order[:_RANKED]])
    encoder = bundle.encoder_path.read_bytes()
    expected = embed_in_batches(GraphSession(encoder, bundle.preprocessing).embed, held)
    rounded = RoundedSession(to_half(encoder))
    others = market.pixels(bundle, [paths[row] for row in order[_RANKED : _RANKED + 256]])
    quantised = GraphSession(quantise(encoder, others), bundle.preprocessing)
    found = {
        "fp16": embed_in_batches(lambda images: rounded.run(images)[0], held),
        "int8": embed_in_batches(quantised.embed, held),
    }
    return {
        name: {
            **asdict(compare_ranking(expected, vectors)),
            "min_cosine": float((expected * vectors).sum(axis=1).min()),
        }
        for name, vectors in found.items()
    }


def _vector_map(market: _Market, old: Bundle, new: Bundle) -> dict[str, Any]:
    names = market.names["train"]
    before, after = market.embeddings(old, "train"), market.embeddings(new, "train")
    clusters = _clusters(after)
    alone = np.arange(len(clusters)) + clusters.max() + 1
    fits = {
        "split_by_cluster": fit_vector_map(
            before, after, groups=np.where(clusters < 0, alone, clusters)
        ),
        "split_by_identity": fit_vector_map(before, after, groups=names[:, 0]),
        "split_by_crop": fit_vector_map(before, after),
    }
    query = {b: market.embeddings(b_, "query") for b, b_ in (("old", old), ("new", new))}
    gallery = {b: market.embeddings(b_, "gallery") for b, b_ in (("old", old), ("new", new))}
    chosen = fits["split_by_cluster"]
    return {
        "fits": {
            name: {**asdict(fit.figures), "pull": fit.pull, "pairs": fit.pairs}
            for name, fit in fits.items()
        },
        "map": {
            "old_queries_old_gallery": _map(market, query["old"], gallery["old"]),
            "new_queries_mapped_gallery": _map(
                market, query["new"], chosen.map.apply(gallery["old"])
            ),
            "new_queries_new_gallery": _map(market, query["new"], gallery["new"]),
        },
    }


def _map(market: _Market, query: NDArray[np.floating], gallery: NDArray[np.floating]) -> float:
    q, g = market.names["query"], market.names["gallery"]
    return evaluate_ranking(query, gallery, q[:, 0], g[:, 0], q[:, 1], g[:, 1]).map


def _clusters(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    return cluster(vectors, ClusterSettings(eps=0.5, k1=20)).labels.astype(np.int64)


def _calibrations(market: _Market, bundle: Bundle) -> dict[str, Any]:
    vectors, names = market.embeddings(bundle, "train"), market.names["train"]
    cameras, labels = names[:, 1], _clusters(vectors)
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, len(vectors), (2, _PAIRS))
    across = cameras[left] != cameras[right]
    pairs = LabelFreePairs(
        left[across], right[across], names[left, 0][across] == names[right, 0][across],
        np.zeros(int(across.sum()), bool),
    )  # fmt: skip
    similarity = pairs.similarities(vectors)
    prior = cluster_prior(labels, cameras) or 0.01
    clustered = choose_clustered(labels, _CROPS)
    tracks = np.unique(names[:, :3], axis=0, return_inverse=True)[1].reshape(-1)
    # Frames order a track's crops; times across tracks are not known.
    sightings = Sightings(cameras, tracks.astype(np.int64), np.full(len(names), np.nan))
    tracked = choose_crops(sightings, _CROPS)
    fits = {
        "clusters": calibrate(
            vectors[clustered],
            cluster_pairs(labels[clustered], cameras[clustered]),
            evidence="clusters",
        ),
        "tracklets": calibrate(vectors[tracked], tracklet_pairs(sightings.take(tracked))),
    }
    found: dict[str, Any] = {"prior": prior, "true_prior": float(pairs.same.mean())}
    for name, message in fits.items():
        calibration = Calibration.from_proto(message)
        balanced = _probabilities(calibration, similarity, 0.5)
        at_prior = _probabilities(calibration, similarity, prior)
        found[name] = {
            "slope": message.slope,
            "calibration_error_between_cameras": reliability(balanced, pairs.same)[0],
            "bins": _bins(at_prior, pairs.same),
        }
    return found


def _probabilities(
    calibration: Calibration, similarity: NDArray[np.float64], prior: float
) -> NDArray[np.float64]:
    grid = np.linspace(-1, 1, 20_001)
    return np.interp(similarity, grid, calibration.probabilities(grid.tolist(), prior=prior))


def _bins(p: NDArray[np.float64], same: NDArray[np.bool_]) -> list[dict[str, float]]:
    rows = []
    for low, high in pairwise(_EDGES):
        inside = (p >= low) & (p < high if high < 1 else p <= 1)
        if inside.any():
            rows.append(
                {
                    "pairs": int(inside.sum()),
                    "probability": float(p[inside].mean()),
                    "share_of_one_person": float(same[inside].mean()),
                }
            )
    return rows
