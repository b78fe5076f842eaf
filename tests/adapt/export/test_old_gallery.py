"""The map between two bundles of a night, from crops on disk to the attachment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from adapt.export.old_gallery import attach_vector_map
from resight.bundle import Bundle, open_bundle, write_bundle
from resight.bundle.graph_session import GraphSession
from resight.bundle.rank_agreement import RankBounds
from resight.bundle.vector_map import load_vector_map
from resight.crops import Preprocessing
from resight.errors import InvalidArgument, NotFound, Refused
from resight.v1 import bundle_pb2


def bundle(path: Path, encoder: bytes) -> Bundle:
    return write_bundle(
        path,
        encoder=encoder,
        preprocessing=Preprocessing(16, 8),
        provenance=bundle_pb2.Provenance(method="spcl"),
        model_card="# card\n",
    )


def changed(encoder: bytes, change: Any) -> bytes:
    model = onnx.load_from_string(encoder)
    for tensor in model.graph.initializer:
        if tensor.name == "encoder/linear":
            values = change(numpy_helper.to_array(tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return bytes(model.SerializeToString())


def turned(weights: np.ndarray) -> np.ndarray:
    return np.asarray(weights @ np.linalg.qr(np.random.default_rng(0).normal(size=(24, 24)))[0])


def test_a_turned_encoder_is_mapped_and_attached(encoder: bytes, site: Any, tmp_path: Path) -> None:
    new = bundle(tmp_path / "new", encoder)
    old = bundle(tmp_path / "old", changed(encoder, turned))
    fitted = attach_vector_map(tmp_path / "new", tmp_path / "old", site.crops, limit=600)
    assert fitted.figures.overlap > 0.95
    after = open_bundle(tmp_path / "new")
    assert after.model_version == new.model_version
    mapped = load_vector_map(after, old.model_version)
    pixels = site.cache().gather(np.arange(40))
    before = GraphSession(old.encoder_path.read_bytes(), old.preprocessing).embed(pixels)
    expected = GraphSession(encoder, new.preprocessing).embed(pixels)
    assert (mapped.apply(before) * expected).sum(axis=1).min() > 0.99
    (agreement,) = after.manifest.rank_agreement
    assert agreement.path == after.manifest.vector_maps[0].path
    assert agreement.overlap == fitted.figures.overlap


def test_a_map_that_falls_short_is_not_attached(encoder: bytes, site: Any, tmp_path: Path) -> None:
    bundle(tmp_path / "new", encoder)

    def forgetful(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights * (np.arange(24) < 2))

    old = bundle(tmp_path / "old", changed(encoder, forgetful))
    with pytest.raises(Refused, match="ranks"):
        attach_vector_map(
            tmp_path / "new", tmp_path / "old", site.crops, bounds=RankBounds(0.9, 0.9)
        )
    with pytest.raises(NotFound):
        load_vector_map(open_bundle(tmp_path / "new"), old.model_version)


def test_a_model_needs_no_map_to_itself(encoder: bytes, site: Any, tmp_path: Path) -> None:
    bundle(tmp_path / "b", encoder)
    with pytest.raises(InvalidArgument, match="no map is needed"):
        attach_vector_map(tmp_path / "b", tmp_path / "b", site.crops)
