"""The bench of the GPU gallery runs, in memory; without a GPU it says so."""

from __future__ import annotations

import faiss
import pytest

from tests.service.gpu.scanners import NumpyScanner

# The folder is not installed; `make test` finds it.
gpu_gallery = pytest.importorskip("bench.gpu_gallery", reason="run from the root, python -m pytest")


def test_scans_are_measured_and_compared() -> None:
    scanner = NumpyScanner()
    figures = gpu_gallery.scans(
        scanner, rows=2500, dimension=16, bandwidth=1.0, slab_rows=1000, rounds=1
    )
    assert not scanner.held
    assert figures["memory_ms"] == pytest.approx(2500 * 16 * 2 / 1e9 * 1e3)
    for name in ("plain", "half", "one_percent"):
        for batch in (1, 16, 64):
            ratio = figures[f"{name}_batch_{batch}_over_memory"]
            assert ratio == pytest.approx(
                figures[f"{name}_batch_{batch}_ms"] / figures["memory_ms"]
            )


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this faiss knows GPUs")
    assert gpu_gallery.main([]) == 1
    assert "no GPU to measure" in capsys.readouterr().err
