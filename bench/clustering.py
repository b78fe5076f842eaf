"""Clustering: beside the exact kNN alone, or by itself at any size, step by step.

    python -m bench clustering                          # 12,936 x 2048-d, synthetic
    python -m bench clustering --rows 50000
    python -m bench clustering --alone --rows 1000000 --dim 128 --decay 0.8 --noise 0.6
    python -m bench clustering --alone --rows 20000 --neighbours approximate --eps auto
    python -m bench clustering --features F.npy         # given features, lifted to 2048-d
    python -m bench clustering --bundle B --crops DIR   # features of real crops, lifted likewise

Each timed repeat runs, one after the other in one process: faiss' exact search (IndexFlatIP, k1
columns), our exact search, and the whole of ``cluster``; reported is the fastest of each, the steps
of the fastest whole, and the ratio of the whole to faiss' search within the same repeat, median of
the repeats. With ``--alone`` our clustering runs once and faiss not at all. Either way, peak memory
is that of a fresh process that loads the features and clusters them, everything counted
(interpreter, libraries, compiler), and the same minus the features. Progress goes to stderr.

Synthetic features (``bench.synthetic``): ``--decay a`` makes the variance of dimension i
proportional to (i + 1)^-a: 0 is isotropic, in which nothing is near anything, 0.8 spreads it about
as wide as the OSNet features of Market-1501 (participation ratio 35 of 128; theirs is 47 of 512).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.candidates import Progress, Search
from adapt.clustering.cell_search import CellSearch
from adapt.clustering.cluster import ClusterResult, cluster, compile_kernels
from adapt.clustering.graph import SparseDistances
from adapt.clustering.neighbours import nearest
from adapt.clustering.settings import ClusterSettings
from bench.machine import cores, describe, peak_rss
from bench.synthetic import lifted, people

_MARKET_ROWS = 12_936
_SPOKEN = 15.0


def main(argv: Sequence[str]) -> int:
    """Run the bench."""
    options = _parser().parse_args(argv)
    if options.child:
        print(json.dumps(_CHILDREN[options.child](options)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        np.save(file, _features(options))
        timed = {} if options.alone else _child("time", file, options)
        alone = _child("alone", file, options)
    report = {
        "command": f"python -m bench clustering {' '.join(argv)}".rstrip(),
        "machine": describe(),
        "source": _source(options),
        **alone,
        **timed,
    }
    print(json.dumps(report, indent=None if options.json else 2))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench clustering")
    parser.add_argument("--rows", type=int, default=_MARKET_ROWS)
    parser.add_argument("--dim", "--dimension", dest="dimension", type=int, default=2048)
    parser.add_argument("--noise", type=float, default=1.2, help="of synthetic crops")
    parser.add_argument("--decay", type=float, default=0.0, help="of synthetic variances")
    parser.add_argument("--alone", action="store_true", help="ours once, no faiss")
    parser.add_argument("--neighbours", choices=["exact", "approximate", "auto"], default="auto")
    parser.add_argument("--recall", type=float, default=0.98, help="of approximate neighbours")
    parser.add_argument("--k1", type=int, default=30)
    parser.add_argument("--eps", default="0.6", help="a number, or auto")
    parser.add_argument("--threads", type=int, help="default: every core")
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
    if options.features is not None:
        return "given features"
    return f"synthetic people, noise {options.noise:g}, decay {options.decay:g}"


def _features(options: argparse.Namespace) -> NDArray[np.float32]:
    if options.bundle is not None:
        return lifted(_embedded(options), options.dimension)
    if options.features is not None:
        return lifted(np.load(options.features, allow_pickle=False), options.dimension)
    return people(options.rows, options.dimension, options.noise, options.decay)


def _embedded(options: argparse.Namespace) -> NDArray[np.float32]:
    from adapt.evaluation.embedding import embed_refs
    from resight.bundle.reader import open_bundle
    from resight.crops.source import open_source

    refs = open_source(options.crops).scan().require_crops()
    features = embed_refs(open_bundle(options.bundle), refs).features
    if options.save is not None:
        np.save(options.save, features)
    return features


def _child(kind: str, file: Path, options: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "bench.clustering", "--child", kind, "--features", str(file),
        "--repeats", str(options.repeats), "--neighbours", options.neighbours,
        "--recall", str(options.recall), "--eps", options.eps, "--k1", str(options.k1),
    ]  # fmt: skip
    if options.threads:
        command += ["--threads", str(options.threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _time(options: argparse.Namespace) -> dict[str, Any]:
    import faiss

    features = np.load(options.features)
    compiled = compile_kernels()
    settings, threads = _settings(options), options.threads
    seconds: dict[str, list[float]] = {"faiss": [], "nearest": [], "whole": []}
    results: list[ClusterResult] = []
    for repeat in range(options.repeats):
        started = time.perf_counter()
        index = faiss.IndexFlatIP(features.shape[1])
        index.add(features)
        index.search(features, settings.k1)
        seconds["faiss"].append(time.perf_counter() - started)
        del index
        started = time.perf_counter()
        nearest(features, settings.k1, threads=threads)
        seconds["nearest"].append(time.perf_counter() - started)
        started = time.perf_counter()
        results.append(cluster(features, settings, threads=threads))
        seconds["whole"].append(time.perf_counter() - started)
        print(f"repeat {repeat + 1} of {options.repeats} done", file=sys.stderr, flush=True)
    pairs = zip(seconds["whole"], seconds["faiss"], strict=True)
    best = min(results, key=lambda result: result.seconds["total"])
    return {
        "repeats": options.repeats,
        "compile_s": round(compiled, 2),
        "faiss_exact_knn_s": round(min(seconds["faiss"]), 2),
        "our_exact_knn_s": round(min(seconds["nearest"]), 2),
        "whole_s": round(min(seconds["whole"]), 2),
        "whole_over_faiss_knn": round(float(np.median([w / f for w, f in pairs])), 2),
        **_steps(best),
    }


def _alone(options: argparse.Namespace) -> dict[str, Any]:
    features = np.load(options.features)
    rows, dimension = features.shape
    settings = _settings(options)
    search: Search | None = None
    if settings.neighbours == "approximate" or (
        settings.neighbours == "auto" and rows > settings.approximate_above
    ):
        search = CellSearch(recall=options.recall)
        settings = replace(settings, neighbours="exact")  # this search and no other
    result = cluster(
        features, settings, threads=options.threads, overwrite=True, search=search,
        progress=_spoken(time.monotonic()),
    )  # fmt: skip
    peak = peak_rss()
    pairs = result.graph.indices.size // 2 if isinstance(result.graph, SparseDistances) else None
    return {
        "rows": rows,
        "dimension": dimension,
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "settings": {
            "k1": settings.k1, "k2": settings.k2, "eps": result.eps,
            "min_samples": settings.min_samples,
        },
        "neighbours": result.neighbours.searched,
        "neighbour_recall": round(result.neighbours.recall, 4),
        **_cells(search),
        **_steps(result),
        "peak_mb": round(peak / 1e6),
        "features_mb": round(features.nbytes / 1e6),
        "peak_above_features_mb": round((peak - features.nbytes) / 1e6),
        "entries_a_row": round(result.entries / rows, 1),
        "pairs_a_row": None if pairs is None else round(pairs / rows, 1),
        "clusters": result.clusters,
        "outliers": result.outliers,
        "largest": result.largest,
        "searched_twice": result.neighbours.searched_twice,
        "notes": list(result.notes),
    }  # fmt: skip


def _settings(options: argparse.Namespace) -> ClusterSettings:
    return ClusterSettings(
        k1=options.k1,
        eps="auto" if options.eps == "auto" else float(options.eps),
        neighbours=options.neighbours,
        neighbour_recall=options.recall,
    )


def _steps(result: ClusterResult) -> dict[str, Any]:
    beyond = result.seconds["total"] - result.seconds["neighbours"]
    return {
        "seconds": {name: round(value, 3) for name, value in result.seconds.items()},
        "beyond_knn_s": round(beyond, 3),
        "beyond_knn_share": round(beyond / result.seconds["total"], 3),
    }


def _cells(search: Search | None) -> dict[str, Any]:
    if not isinstance(search, CellSearch):
        return {}
    return {
        "cells": search.cells,
        "looked_into": search.looked_into,
        "rounds": search.rounds,
        "search_seconds": {name: round(value, 2) for name, value in search.seconds.items()},
    }


def _spoken(started: float) -> Progress:
    """Says now and then how far the neighbour search is."""
    spoken = started

    def say(done: int, whole: int) -> None:
        nonlocal spoken
        now = time.monotonic()
        if now - spoken >= _SPOKEN:
            spoken = now
            share = f"{done / whole:.0%}"
            print(f"neighbours: {share} after {now - started:.0f} s", file=sys.stderr, flush=True)

    return say


_CHILDREN = {"alone": _alone, "time": _time}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
