"""Infomap: refused in words where it is not installed; where it is, modules of a known graph."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from adapt.clustering import map_equation
from adapt.clustering.map_equation import infomap_labels, require_infomap
from adapt.clustering.neighbours import Neighbours, nearest
from resight.errors import FailedPrecondition


def groups() -> Neighbours:
    """Three groups of 8, 6 and 3 rows, and a row of its own."""
    random = np.random.default_rng(0)
    rows = np.repeat(np.eye(8)[:4], [8, 6, 3, 1], axis=0) + 0.1 * random.standard_normal((18, 8))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return nearest(rows.astype(np.float32), 6)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_equation, "find_spec", lambda _name: None)
    with pytest.raises(FailedPrecondition, match=r"resight\[infomap\]") as caught:
        require_infomap()
    assert caught.value.reason == "INFOMAP_MISSING"
    with pytest.raises(FailedPrecondition):
        infomap_labels(groups(), min_cosine=0.5, min_size=5, seed=1)


def test_the_method_does_not_import_the_package() -> None:
    program = "import sys, adapt.methods.calr; sys.exit('infomap' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


needs_infomap = pytest.mark.skipif(find_spec("infomap") is None, reason="extra infomap")


@needs_infomap
def test_groups_are_modules_and_small_ones_are_outliers() -> None:
    labels = infomap_labels(groups(), min_cosine=0.5, min_size=5, seed=1)
    assert labels.tolist() == [0] * 8 + [1] * 6 + [-1] * 4
    assert infomap_labels(groups(), min_cosine=0.5, min_size=3, seed=1).max() == 2


@needs_infomap
def test_without_links_all_are_outliers() -> None:
    alone = nearest(np.eye(6, dtype=np.float32), 3)
    for min_cosine in (0.0, 0.5):
        labels = infomap_labels(alone, min_cosine=min_cosine, min_size=2, seed=1)
        assert labels.tolist() == [-1] * 6
