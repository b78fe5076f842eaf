"""CALR's first stage for one huge camera: time and memory.

python -m bench local_clusters --rows 50000
python -m bench local_clusters --rows 50000 --equal 7000     # that many crops are the same
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence

from adapt.clustering.cluster import compile_kernels
from adapt.methods.local_clusters import local_clusters
from adapt.training.calr_settings import CalrSettings
from bench.machine import cores, describe, peak_rss
from bench.synthetic import people


def main(argv: Sequence[str]) -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench local_clusters")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--noise", type=float, default=0.6)
    parser.add_argument("--decay", type=float, default=0.8)
    parser.add_argument("--equal", type=int, default=0, help="crops that are one and the same")
    options = parser.parse_args(argv)
    features = people(options.rows, options.dim, options.noise, options.decay)
    features[: options.equal] = features[:1]
    settings = CalrSettings()
    compile_kernels()
    local_clusters(features[:600], settings)  # compiles the rest
    before = peak_rss()
    started = time.perf_counter()
    found = local_clusters(features, settings)
    report = {
        "command": f"python -m bench local_clusters {' '.join(argv)}".rstrip(),
        "machine": describe(),
        "rows": options.rows,
        "dimension": options.dim,
        "equal": options.equal,
        "cores": cores(),
        "load": round(os.getloadavg()[0], 1),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_above_start_mb": round((peak_rss() - before) / 1e6),
        "clusters": found.count,
        "silhouette": round(found.silhouette, 3),
        "notes": list(found.notes),
    }
    print(json.dumps(report))
    return 0
