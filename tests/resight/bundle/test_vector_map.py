"""Reading a vector map: what was written, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resight.bundle import Bundle, open_bundle
from resight.bundle.attachments import Attachments, attach
from resight.bundle.vector_map import VectorMap, load_vector_map
from resight.errors import BundleCorrupt, InvalidArgument, NotFound
from resight.v1 import bundle_pb2

DIMENSION = 5  # of the encoder that the fixtures wrap
Write = Callable[..., Bundle]


def a_map(rows: int = 3) -> VectorMap:
    rng = np.random.default_rng(0)
    return VectorMap(
        rng.normal(size=(rows, DIMENSION)).astype(np.float32),
        rng.normal(size=DIMENSION).astype(np.float32),
    )


def attachment(data: bytes, rows: int = 3) -> Attachments:
    entry = bundle_pb2.VectorMap(path="maps/aa.f32", from_version="aa", from_dimension=rows)
    return Attachments(files={"maps/aa.f32": data}, vector_maps=[entry])


def test_a_map_is_read_back_and_applied(write: Write, tmp_path: Path) -> None:
    before = write(tmp_path / "b")
    attach(tmp_path / "b", attachment(a_map().to_bytes()))
    bundle = open_bundle(tmp_path / "b")
    assert bundle.model_version == before.model_version
    found = load_vector_map(bundle, "aa")
    vectors = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    expected = vectors.astype(np.float64) @ a_map().matrix + a_map().offset
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(found.apply(vectors), expected, atol=1e-6)
    assert found.apply(vectors).dtype == np.float32
    assert found.apply(vectors[:0]).shape == (0, DIMENSION)


def test_other_versions_and_shapes_are_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="those of: none"):
        load_vector_map(write(tmp_path / "a"), "aa")
    bundle = write(tmp_path / "b", attachments=attachment(a_map().to_bytes()))
    with pytest.raises(NotFound, match="those of: aa"):
        load_vector_map(bundle, "bb")
    loaded = load_vector_map(bundle, "aa")
    with pytest.raises(InvalidArgument, match="takes \\(N, 3\\)"):
        loaded.apply(np.zeros((2, 4)))
    with pytest.raises(InvalidArgument, match="not finite"):
        loaded.apply(np.full((2, 3), np.nan))


@pytest.mark.parametrize("case", ["short", "rows", "zero", "nan"])
def test_a_file_of_another_size_is_corrupt(write: Write, tmp_path: Path, case: str) -> None:
    data, rows = a_map().to_bytes(), 3
    if case == "short":
        data = data[:-4]
    if case in {"rows", "zero"}:
        rows = 4 if case == "rows" else 0
    if case == "nan":
        data = np.full(4 * DIMENSION, np.nan, "<f4").tobytes()
    bundle = write(tmp_path / "b", attachments=attachment(data, rows))
    with pytest.raises(BundleCorrupt, match=r"maps/aa\.f32"):
        load_vector_map(bundle, "aa")
