"""The card: what the run knows is in it, who was seen is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from adapt.export.gate_result import attach_gate
from adapt.export.model_card import describe_crops
from adapt.gate.verdict import Signal, Verdict
from resight.bundle import ModelCard, open_bundle, render_model_card, write_bundle
from resight.bundle.model_card import with_section
from resight.crops import CropRef, Preprocessing
from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2


def verdict(candidate: str, *, passed: bool = True) -> dict[str, Any]:
    return Verdict(
        passed=passed, score=0.25, baseline_score=None,
        reasons=("tracklet agreement 0.91 against 0.88",),
        signals=(Signal("tracklets", 0.91, 0.88, weight=1.0),),
        candidate=candidate, live="fedcba9876543210", baseline="", crops=300,
        notes=(), settings={}, seconds={},
    ).payload()  # fmt: skip


def test_the_verdict_is_in_the_bundle_and_on_its_card(encoder: bytes, tmp_path: Path) -> None:
    bundle = write_bundle(
        tmp_path / "b",
        encoder=encoder,
        preprocessing=Preprocessing(16, 8),
        provenance=bundle_pb2.Provenance(method="spcl"),
        model_card=render_model_card(ModelCard("test", 16, 8)),
    )
    before = bundle.file("model_card.md").read_text()
    assert "## Gate\n\nNot judged" in before
    said = verdict(bundle.model_version)
    attach_gate(tmp_path / "b", said)
    judged = open_bundle(tmp_path / "b")
    assert judged.model_version == bundle.model_version
    assert json.loads(judged.file("gate.json").read_text()) == said
    card = judged.file("model_card.md").read_text()
    assert "**Passed** against fedcba9876543210, score 0.250" in card
    assert "- tracklet agreement 0.91 against 0.88" in card
    assert "Not judged" not in card
    attach_gate(tmp_path / "b", verdict(bundle.model_version, passed=False))
    card = open_bundle(tmp_path / "b").file("model_card.md").read_text()
    assert "**Refused**" in card
    assert "**Passed**" not in card
    assert card.split("## Gate")[0] == before.split("## Gate")[0]
    assert card.split("## Limits")[1] == before.split("## Limits")[1]
    for wrong in (verdict("0" * 16), {"candidate": bundle.model_version}):
        with pytest.raises(InvalidArgument, match="verdict"):
            attach_gate(tmp_path / "b", wrong)


def test_sections_are_replaced_or_added() -> None:
    card = "# T\n\n## A\n\none\n\n## Gate\n\nold\nmore\n\n## B\n\ntwo\n"
    assert (
        with_section(card, "Gate", "new") == "# T\n\n## A\n\none\n\n## Gate\n\nnew\n\n## B\n\ntwo\n"
    )
    assert with_section(card, "B", "x").endswith("## B\n\nx\n")
    assert with_section("# T\n", "Gate", "new") == "# T\n\n## Gate\n\nnew\n"
    assert with_section(with_section(card, "Gate", "y"), "Gate", "old\nmore") == card


def test_crops_are_described_by_counts_cameras_and_dates_alone() -> None:
    start = datetime(2026, 5, 4, 8, 0, tzinfo=UTC)
    crops = [
        CropRef(
            Path(f"/data/people/jane-{number}.jpg"),
            camera=f"gate{number % 2}",
            track=f"t{number // 4}",
            capture_time=start + timedelta(hours=number),
            attributes={"name": "jane"},
        )
        for number in range(12)
    ]
    text = describe_crops([*crops, CropRef(Path("x.jpg"))], skipped=3)
    assert "13 unlabelled crops; 3 skipped" in text
    assert "gate0 (6), gate1 (6)" in text
    assert "2026-05-04 08:00 to 2026-05-04 19:00 UTC" in text
    assert "Tracks: 6" in text  # two tracks of one name in two cameras are two
    assert "Without camera: 1" in text
    assert "Without time: 1" in text
    assert "jane" not in text
    assert "/data" not in text
    bare = describe_crops([CropRef(Path("x.jpg"))])
    assert bare.count("not known") == 3
    many = describe_crops([CropRef(Path("x"), camera=f"c{number:03}") for number in range(40)])
    assert "and 8 more" in many
