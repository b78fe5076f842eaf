"""Compilation where no cache can be written, and clustering from several threads and processes."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import adapt
from adapt.clustering.cluster import cluster

ROOT = Path(adapt.__file__).resolve().parent.parent

PROGRAM = """
import numpy as np
import adapt.clustering.dbscan as module
from adapt.clustering.graph import SparseDistances
columns, distances = np.array([1, 0], np.int32), np.zeros(2, np.float32)
graph = SparseDistances(np.array([0, 1, 2]), columns, distances, .5)
print(".zip" in module.__file__, module.dbscan(graph, eps=.5, min_samples=2).tolist())
"""


def test_kernels_compile_where_no_cache_can_be_written(tmp_path: Path) -> None:
    # From an archive numba can write beside no source; root may write anywhere, so every other
    # place it would try lies below a file.
    archive = tmp_path / "source.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for source in [*(ROOT / "adapt" / "clustering").glob("*.py"), ROOT / "adapt/__init__.py"]:
            packed.write(source, source.relative_to(ROOT))
        for source in (ROOT / "resight").glob("*.py"):
            packed.write(source, source.relative_to(ROOT))
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "below")
    environment = os.environ | {
        "PYTHONPATH": str(archive), "HOME": nowhere, "XDG_CACHE_HOME": nowhere,
        "NUMBA_CACHE_DIR": "",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        check=False, capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout.split() == ["True", "[0,", "0]"], done.stderr


def test_concurrent_callers_get_their_own_labels(data_set: Callable[[str], np.ndarray]) -> None:
    sets = [data_set(name) for name in ("clustered", "loose", "duplicates", "random")] * 3
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda rows: cluster(rows, threads=2).labels, sets))
    for rows, labels in zip(sets, together, strict=True):
        np.testing.assert_array_equal(labels, cluster(rows, threads=1).labels)
