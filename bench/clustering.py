"""Clustering beside the exact kNN alone: time, ratio, peak memory.

    python -m bench clustering                          # 12,936 x 2048-d, synthetic
    python -m bench clustering --rows 50000
    python -m bench clustering --features F.npy         # given features, lifted to 2048-d
    python -m bench clustering --bundle B --crops DIR   # features of real crops, lifted likewise

Each timed repeat runs, one after the other in one process: faiss' exact search (IndexFlatIP, k1
columns), our exact search, and the whole of ``cluster``; reported is the fastest of each, and the
ratio of the whole to faiss' search within the same repeat, median of the repeats. Compile time is
reported apart. Peak memory is that of a fresh process that loads the features and clusters them,
everything counted (interpreter, libraries, compiler), minus the features.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.machine import peak_rss

_MARKET_ROWS = 12_936


def main(argv: Sequence[str]) -> int:
    """Run the bench."""
    options = _parser().parse_args(argv)
    if options.child:
        print(json.dumps(_CHILDREN[options.child](options)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        features = _features(options)
        np.save(file, features)
        shape, size = features.shape, features.nbytes
        del features
        timed = _child("time", file, options)
        memory = _child("memory", file, options)
    above = memory["peak_bytes"] - size
    report = {
        "rows": shape[0],
        "dimension": shape[1],
        "source": _source(options),
        "settings": {"k1": 30, "k2": 6, "eps": 0.6, "min_samples": 4},
        **timed,
        "peak_mb": round(memory["peak_bytes"] / 1e6),
        "features_mb": round(size / 1e6),
        "peak_above_features_mb": round(above / 1e6),
    }
    print(json.dumps(report, indent=None if options.json else 2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench clustering")
    parser.add_argument("--rows", type=int, default=_MARKET_ROWS)
    parser.add_argument("--dimension", type=int, default=2048)
    parser.add_argument("--features", type=Path, help=".npy (N, D) instead of synthetic ones")
    parser.add_argument("--bundle", type=Path, help="embed --crops with this bundle instead")
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--save", type=Path, help="keep the embedded features as .npy")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="on one line")
    parser.add_argument("--child", choices=sorted(_CHILDREN), help=argparse.SUPPRESS)
    return parser


def _source(options: argparse.Namespace) -> str:
    if options.bundle is not None:
        return "crops, lifted by a random orthonormal map"
    return "given features" if options.features is not None else "synthetic clusters"


def _features(options: argparse.Namespace) -> NDArray[np.float32]:
    if options.bundle is not None:
        return _lifted(_embedded(options), options.dimension)
    if options.features is not None:
        return _lifted(np.load(options.features, allow_pickle=False), options.dimension)
    return _synthetic(options.rows, options.dimension)


def _embedded(options: argparse.Namespace) -> NDArray[np.float32]:
    from adapt.evaluation.embedding import embed_refs
    from resight.bundle.reader import open_bundle
    from resight.crops.source import open_source

    refs = open_source(options.crops).scan().require_crops()
    features = embed_refs(open_bundle(options.bundle), refs).features
    if options.save is not None:
        np.save(options.save, features)
    return features


def _lifted(features: NDArray[np.floating], dimension: int) -> NDArray[np.float32]:
    """The same geometry in more dimensions: multiplied by a matrix with orthonormal rows."""
    if features.shape[1] < dimension:
        rng = np.random.default_rng(0)
        basis = np.linalg.qr(rng.standard_normal((dimension, features.shape[1])))[0].T
        features = features.astype(np.float32) @ basis.astype(np.float32)
    return _unit(features.astype(np.float32))


def _synthetic(rows: int, dimension: int) -> NDArray[np.float32]:
    """Identities of 17 crops on average, as in Market-1501, overlapping at their borders."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(1, rows // 17), dimension), dtype=np.float32)
    features = centres[rng.integers(0, len(centres), rows)]
    for start in range(0, rows, 4096):
        part = features[start : start + 4096]
        part += 1.2 * rng.standard_normal(part.shape, dtype=np.float32)
    return _unit(features)


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def _child(kind: str, file: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "bench.clustering", "--child", kind, "--features", str(file),
        "--repeats", str(options.repeats),
    ]  # fmt: skip
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _time(options: argparse.Namespace) -> dict[str, Any]:
    import faiss

    from adapt.clustering.cluster import ClusterSettings, cluster, compile_kernels
    from adapt.clustering.neighbours import nearest

    features = np.load(options.features)
    compiled = compile_kernels()
    settings = ClusterSettings()
    seconds: dict[str, list[float]] = {"faiss": [], "nearest": [], "whole": []}
    for _ in range(options.repeats):
        started = time.perf_counter()
        index = faiss.IndexFlatIP(features.shape[1])
        index.add(features)
        index.search(features, settings.k1)
        searched = time.perf_counter()
        del index
        seconds["faiss"].append(searched - started)
        started = time.perf_counter()
        nearest(features, settings.k1)
        seconds["nearest"].append(time.perf_counter() - started)
        started = time.perf_counter()
        result = cluster(features, settings)
        seconds["whole"].append(time.perf_counter() - started)
    pairs = zip(seconds["whole"], seconds["faiss"], strict=True)
    return {
        "compile_s": round(compiled, 2),
        "faiss_exact_knn_s": round(min(seconds["faiss"]), 2),
        "our_exact_knn_s": round(min(seconds["nearest"]), 2),
        "whole_s": round(min(seconds["whole"]), 2),
        "whole_over_faiss_knn": round(float(np.median([w / f for w, f in pairs])), 2),
        "beyond_our_knn_s": round(result.seconds["jaccard"] + result.seconds["dbscan"], 3),
        "clusters": result.clusters,
        "outliers": result.outliers,
        "searched_twice": result.neighbours.searched_twice,
    }


def _memory(options: argparse.Namespace) -> dict[str, Any]:
    from adapt.clustering.cluster import ClusterSettings, cluster

    features = np.load(options.features)
    cluster(features, ClusterSettings(), overwrite=True)
    return {"peak_bytes": peak_rss()}


_CHILDREN = {"memory": _memory, "time": _time}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
