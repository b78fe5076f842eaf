"""Embedding, reading of identities, and the evaluation of a bundle."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from adapt.evaluation.command import register
from adapt.evaluation.embedding import embed_refs
from adapt.evaluation.evaluate import evaluate_bundle
from adapt.evaluation.labels import read_labels
from resight.bundle.bundle import Bundle
from resight.crops.crop import CropRef
from resight.crops.source import open_source
from resight.errors import FailedPrecondition, InvalidArgument


def by_hand(bundle: Bundle, paths: list[Path]) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        str(bundle.encoder_path), providers=["CPUExecutionProvider"]
    )
    rows = []
    for path in paths:
        image = Image.open(path).convert("RGB").resize((16, 32), Image.Resampling.BILINEAR)
        rows.append(session.run(None, {"images": np.asarray(image)[None]})[0][0])
    return np.stack(rows)


def rewrite(manifest: Path, change: Callable[[dict[str, str]], dict[str, str]]) -> Path:
    with manifest.open(newline="") as stream:
        rows = [change(row) for row in csv.DictReader(stream)]
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def test_embedding_equals_one_crop_at_a_time_in_order(
    colour_bundle: Bundle, crop_set: Path
) -> None:
    refs = open_source(crop_set / "gallery").scan().crops
    advanced: list[int] = []
    features, kept, skipped = embed_refs(colour_bundle, refs, batch=7, advance=advanced.append)
    assert kept == list(refs)
    assert skipped == []
    assert sum(advanced) == len(refs)
    np.testing.assert_allclose(features, by_hand(colour_bundle, [r.path for r in refs]), atol=1e-6)


def test_a_broken_crop_is_skipped_and_named(colour_bundle: Bundle, crop_set: Path) -> None:
    paths = sorted((crop_set / "query").iterdir())
    paths[3].write_bytes(paths[3].read_bytes()[:60])
    paths[5].unlink()
    features, kept, skipped = embed_refs(colour_bundle, [CropRef(path) for path in paths], batch=4)
    whole = [path for path in paths if path not in (paths[3], paths[5])]
    assert [ref.path for ref in kept] == whole
    assert [(crop.path, str(crop.reason)) for crop in skipped] == [
        (paths[3], "truncated"), (paths[5], "unreadable"),
    ]  # fmt: skip
    np.testing.assert_allclose(features, by_hand(colour_bundle, whole), atol=1e-6)


def test_no_crops_and_only_broken_crops_embed_to_nothing(
    colour_bundle: Bundle, tmp_path: Path
) -> None:
    assert embed_refs(colour_bundle, []).features.shape == (0, 24)
    (tmp_path / "x.png").write_bytes(b"")
    broken = embed_refs(colour_bundle, [CropRef(tmp_path / "x.png")])
    assert broken.features.shape == (0, 24)
    assert str(broken.skipped[0].reason) == "zero-byte"


def test_folders_and_manifests_give_the_figures_of_a_plain_calculation(
    colour_bundle: Bundle, crop_set: Path
) -> None:
    def who(path: Path) -> tuple[int, str]:
        identity, rest = path.name.split("_c")
        return int(identity), rest[0]

    query = sorted((crop_set / "query").iterdir())
    gallery = [p for p in sorted((crop_set / "gallery").iterdir()) if who(p)[0] != -1]
    scores = by_hand(colour_bundle, query) @ by_hand(colour_bundle, gallery).T
    precisions = []
    for q, row in zip(query, scores, strict=True):
        ranked = [gallery[g] for g in np.argsort(-row)]
        ranked = [g for g in ranked if who(g) != who(q)]
        hits = [r for r, g in enumerate(ranked, start=1) if who(g)[0] == who(q)[0]]
        precisions.append(np.mean([n / r for n, r in enumerate(hits, start=1)]))
    assert 0.3 < np.mean(precisions) < 0.99  # the set is neither trivial nor hopeless
    for query_spec, gallery_spec in (("query", "gallery"), ("query.csv", "gallery.csv")):
        result = evaluate_bundle(colour_bundle, crop_set / query_spec, crop_set / gallery_spec)
        assert result.metrics.map == pytest.approx(np.mean(precisions), abs=1e-9)
        assert (result.metrics.queries, result.metrics.gallery) == (16, 54)
        assert result.notes == []


def test_parquet_and_textual_identities(crop_set: Path, colour_bundle: Bundle) -> None:
    expected = evaluate_bundle(colour_bundle, crop_set / "query", crop_set / "gallery").metrics.map
    specs = []
    for split in ("query", "gallery"):
        with (crop_set / f"{split}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            row["identity"] = row["identity"] if row["identity"] == "-1" else f"p{row['identity']}"
        specs.append(crop_set / f"{split}.parquet")
        pq.write_table(pa.Table.from_pylist(rows), specs[-1])
    assert evaluate_bundle(colour_bundle, *specs).metrics.map == pytest.approx(expected)
    assert read_labels(specs[0]).identity(crop_set / rows[0]["path"]) is None
    assert read_labels(specs[1]).identity(crop_set / rows[-1]["path"]) == "p8"


def test_a_manifest_without_identities_falls_back_on_names(crop_set: Path) -> None:
    def nameless(row: dict[str, str]) -> dict[str, str]:
        del row["identity"]
        return row

    labels = read_labels(rewrite(crop_set / "query.csv", nameless))
    path = next(iter(sorted((crop_set / "query").iterdir())))
    assert labels.identity(path) == "1"


def test_missing_cameras_are_an_error_unless_ignored(colour_bundle: Bundle, crop_set: Path) -> None:
    def forget(row: dict[str, str]) -> dict[str, str]:
        return row | {"camera": ""}

    gallery = rewrite(crop_set / "gallery.csv", forget)
    with pytest.raises(InvalidArgument, match=r"gallery: 60 of 60 .*--ignore-cameras"):
        evaluate_bundle(colour_bundle, crop_set / "query.csv", gallery)
    result = evaluate_bundle(colour_bundle, crop_set / "query.csv", gallery, ignore_cameras=True)
    assert any("not the Market protocol" in note for note in result.notes)


def test_one_camera_for_all_names_the_cause(colour_bundle: Bundle, crop_set: Path) -> None:
    def same(row: dict[str, str]) -> dict[str, str]:
        return row | {"camera": "c1"}

    specs = [rewrite(crop_set / f"{split}.csv", same) for split in ("query", "gallery")]
    with pytest.raises(FailedPrecondition, match="own camera"):
        evaluate_bundle(colour_bundle, *specs)


def test_unknown_identities_name_the_first_crop(colour_bundle: Bundle, crop_set: Path) -> None:
    path = sorted((crop_set / "query").iterdir())[0]
    path.rename(path.with_name("0-visitor.png"))
    with pytest.raises(InvalidArgument, match=r"query: 1 of 16 .* 0-visitor\.png"):
        evaluate_bundle(
            colour_bundle, crop_set / "query", crop_set / "gallery", ignore_cameras=True
        )


def test_skipped_crops_are_counted_and_queries_that_find_themselves_are_said(
    colour_bundle: Bundle, crop_set: Path
) -> None:
    paths = sorted((crop_set / "gallery").iterdir())
    paths[-1].write_bytes(b"")
    result = evaluate_bundle(
        colour_bundle, crop_set / "gallery", crop_set / "gallery", ignore_cameras=True
    )
    assert result.metrics.rank(1) == 1.0
    assert "2 crops skipped: 2 zero-byte" in result.notes
    assert "53 query files are in the gallery and find themselves" in result.notes


def test_command_prints_one_json_object(colour_bundle: Bundle, crop_set: Path) -> None:
    app = typer.Typer()
    register(app)
    arguments = [
        "--bundle", str(colour_bundle.directory), "--query", str(crop_set / "query"),
        "--gallery", str(crop_set / "gallery"),
    ]  # fmt: skip
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    direct = evaluate_bundle(colour_bundle, crop_set / "query", crop_set / "gallery").metrics
    assert answer["map"] == direct.map
    assert [answer[f"rank{r}"] for r in (1, 5, 10)] == [direct.rank(r) for r in (1, 5, 10)]
    assert (answer["queries"], answer["gallery"]) == (direct.queries, direct.gallery)
    text = CliRunner().invoke(app, arguments).stdout
    assert f"mAP {100 * direct.map:.1f} %" in text
