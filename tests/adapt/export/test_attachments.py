"""What a run attaches: what passes is there with its figures, what fails is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from adapt.export.attachments import RunCrops, make_attachments
from adapt.export.cluster_pairs import choose_clustered
from adapt.export.settings import ExportSettings
from resight.bundle.attachments import Attachments
from resight.bundle.calibration import Calibration
from resight.bundle.graph_session import GraphSession
from resight.crops import Preprocessing
from resight.v1 import bundle_pb2

SIZE = Preprocessing(16, 8)
KINDS = bundle_pb2.ScoreCalibration


def attached(encoder: bytes, run: RunCrops, **settings: Any) -> Attachments:
    return make_attachments(encoder, SIZE, run, ExportSettings(**settings))


def test_by_default_fp16_and_a_calibration_from_tracks(encoder: bytes, site: Any) -> None:
    run = RunCrops(site.cache(), labels=site.people)
    found = attached(encoder, run)
    assert list(found.files) == ["encoder.fp16.onnx"]
    (agreement,) = found.rank_agreement
    assert agreement.queries == 128
    assert agreement.overlap >= 0.95
    assert [entry.batch_size for entry in found.parity] == [1, 2, 7]
    assert found.notes == []
    assert found.calibration is not None
    assert found.calibration.evidence == KINDS.EVIDENCE_TRACKLETS
    assert found.calibration.held_out_positives > 0
    again = attached(encoder, run)
    assert (again.files, again.calibration) == (found.files, found.calibration)


def test_sure_probabilities_are_right_about_who_is_seen(encoder: bytes, site: Any) -> None:
    """Against the truth, which the fit has not seen."""
    cache = site.cache()
    vectors = GraphSession(encoder, SIZE).embed(cache.gather(np.arange(len(cache))))
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, len(cache), (2, 20_000))
    same = site.people[left] == site.people[right]
    s = np.einsum("ij,ij->i", vectors[left], vectors[right])
    for labels, evidence in ((None, "tracklets"), (site.people, "clusters")):
        message = attached(
            encoder, RunCrops(cache, labels=labels), fp16=False, calibration=evidence
        ).calibration
        assert message is not None
        calibration = Calibration.from_proto(message)
        p = np.array(calibration.probabilities(s.tolist(), prior=0.5))
        weight = np.where(same, 0.5 / same.mean(), 0.5 / (~same).mean())
        for inside, low, high in ((p < 0.2, 0.0, 0.2), (p > 0.8, 0.8, 1.0)):
            assert inside.sum() > 50
            assert low <= weight[inside & same].sum() / weight[inside].sum() <= high


def test_without_tracks_clusters_stand_in_and_are_marked(encoder: bytes, site: Any) -> None:
    run = RunCrops(site.cache(track=None), labels=site.people)
    found = attached(encoder, run, fp16=False)
    assert found.calibration is not None
    assert found.calibration.evidence == KINDS.EVIDENCE_CLUSTERS
    assert found.calibration.held_out_positives == 0
    notes = " ".join(found.calibration.notes)
    assert "confirm it" in notes
    assert "give more crops with tracks" in notes  # why not on something better
    share = (site.people[:, None] == site.people).mean()
    assert found.calibration.prior == pytest.approx(share, rel=0.3)


def test_with_neither_there_is_no_calibration_and_a_note(encoder: bytes, site: Any) -> None:
    for labels in (None, np.empty(0, int), np.full(len(site.crops), -1)):
        run = RunCrops(site.cache(track=None), labels=labels)
        found = attached(encoder, run, fp16=False)
        assert found.calibration is None
        assert "score calibration left out" in found.notes[0]
    found = attached(encoder, RunCrops(site.cache()), fp16=False, calibration="clusters")
    assert "neither tracks nor clusters" in found.notes[0]
    assert attached(encoder, RunCrops(site.cache()), fp16=False, calibration="off").notes == []


def test_settings_are_obeyed(encoder: bytes, site: Any) -> None:
    run = RunCrops(site.cache(), labels=site.people)
    found = attached(encoder, run, fp16=False, prior=0.02, calibration_form="isotonic")
    assert found.files == {}
    assert found.calibration is not None
    assert found.calibration.prior == pytest.approx(0.02)
    assert found.calibration.form == KINDS.FORM_ISOTONIC
    unlabelled = attached(encoder, RunCrops(site.cache()), fp16=False).calibration
    assert unlabelled is not None
    assert unlabelled.prior == pytest.approx(0.01)
    few = attached(encoder, run, crops=20)
    assert "not compared by ranking" in few.notes[0]
    none = attached(encoder, run, crops=0)
    assert list(none.files) == ["encoder.fp16.onnx"]
    assert none.calibration is None


def test_ignored_cameras_stay_unknown(encoder: bytes, site: Any) -> None:
    run = RunCrops(site.cache(), labels=site.people, ignore_cameras=True)
    assert (run.sightings.cameras == -1).all()
    found = attached(encoder, run, fp16=False).calibration
    assert found is not None
    assert any("at random" in note for note in found.notes)


def test_a_graph_that_ranks_otherwise_is_left_out_and_says_by_how_much(
    encoder: bytes, site: Any
) -> None:
    run = RunCrops(site.cache())
    found = attached(encoder, run, calibration="off", int8=True, min_overlap=1.0)
    assert found.files == {}
    assert [note.split(" left out")[0] for note in found.notes] == [
        "encoder.fp16.onnx",
        "encoder.int8.onnx",
    ]
    assert all("below 1" in note for note in found.notes)
    lenient = attached(
        encoder, run, calibration="off", int8=True, min_overlap=0.5, min_correlation=0.5
    )
    assert set(lenient.files) == {"encoder.fp16.onnx", "encoder.int8.onnx"}
    assert {entry.path for entry in lenient.rank_agreement} == set(lenient.files)


def test_chosen_clusters_are_whole() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 300, 3000)
    chosen = choose_clustered(labels, 400, seed=1)
    assert len(set(chosen.tolist())) == 400
    _, counts = np.unique(labels[chosen][labels[chosen] >= 0], return_counts=True)
    sizes = np.bincount(labels[labels >= 0])
    names = np.unique(labels[chosen][labels[chosen] >= 0])
    assert (counts == sizes[names]).sum() >= 15
    assert np.array_equal(choose_clustered(labels, 10**6), np.arange(3000))
