"""Several examples of one person, through a real service."""

from __future__ import annotations

import io
import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from resight.cli import app
from resight.v1 import search_service_pb2 as search_pb2
from resight.v1.types_pb2 import Embedding
from tests.e2e.retrieval_site import (
    CAMERAS,
    CROPS,
    DATABASES,
    Site,
    crop_ids,
    example,
    pages,
    refused,
)

pytestmark = DATABASES


def test_the_mean_of_examples_moves_away_from_negatives(site: Site) -> None:
    chosen = {
        "positives": [{"crop_id": site.ids[1]}, {"crop_id": site.ids[2], "weight": 3.0}],
        "negatives": [{"crop_id": site.ids[5]}],
    }
    mean = (site.vectors[1] + 3 * site.vectors[2]) / 4 - 0.2 * site.vectors[5]
    scores = site.vectors @ (mean / np.linalg.norm(mean))
    rows = [n for n in range(CROPS) if n not in (1, 2, 5)]
    body = site.rest(top_k=CROPS, **chosen)
    answer = site.grpc(
        top_k=CROPS,
        positives=[example(site, 1), example(site, 2, weight=3.0)],
        negatives=[example(site, 5)],
    )
    assert crop_ids(body) == crop_ids(answer)
    found = [site.ids.index(key) for key in crop_ids(answer)]
    assert sorted(found) == rows
    np.testing.assert_allclose([m.score for m in answer.matches], scores[found], atol=1e-5)
    assert pages(site.rest, top_k=10, **chosen) == crop_ids(body)


def test_the_nearest_example_counts_and_negatives_leave_out(site: Site) -> None:
    query, unwanted = site.image(4001), [7, 8, 9]
    examples = np.stack([site.vector(query), site.vectors[20]])
    best = (site.vectors @ examples.T).max(axis=1)
    against = (site.vectors @ site.vectors[unwanted].T).max(axis=1)
    rows = [n for n in range(CROPS) if against[n] < best[n] and n not in (20, *unwanted)]
    assert 5 < len(rows) < CROPS - 10, "negatives leave some out and not all"
    fields: dict[str, Any] = {
        "image": query,
        "positives": [example(site, 20)],
        "negatives": [example(site, number) for number in unwanted],
        "fusion": search_pb2.FUSION_MAX,
    }
    answer = site.grpc(top_k=CROPS, **fields)
    found = [site.ids.index(key) for key in crop_ids(answer)]
    assert sorted(found) == rows
    np.testing.assert_allclose([m.score for m in answer.matches], best[found], atol=1e-5)
    assert list(found) == sorted(found, key=lambda n: -best[n])
    assert pages(site.grpc, top_k=4, **fields) == crop_ids(answer)


def test_images_in_a_form_are_examples(site: Site) -> None:
    pictures = [site.image(3001), site.image(3002), site.image(3003)]
    files = [("image", ("a.jpg", pictures[0])), ("image", ("b.jpg", pictures[1]))]
    files.append(("negative_image", ("c.jpg", pictures[2])))
    form = {"top_k": str(CROPS), "fusion": "quality"}
    answer = site.client.post("/search", files=files, data=form)
    assert answer.status_code == 200, answer.text
    same = site.grpc(
        top_k=CROPS,
        image=pictures[0],
        positives=[search_pb2.Example(image=pictures[1])],
        negatives=[search_pb2.Example(image=pictures[2])],
        fusion=search_pb2.FUSION_QUALITY,
    )
    assert crop_ids(answer.json()) == crop_ids(same)
    assert set(crop_ids(same)[:2]) == {site.ids[1], site.ids[2]}


def test_a_blurred_image_counts_less(site: Site) -> None:
    sharp = site.image(4100)
    picture = Image.open(io.BytesIO(site.image(4101))).filter(ImageFilter.GaussianBlur(12))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    images = {"image": sharp, "positives": [search_pb2.Example(image=buffer.getvalue())]}

    def nearness(fusion: Any) -> float:
        """How near the ranking's scores are to those of the sharp image alone."""
        alone = {m.crop.crop_id: m.score for m in site.grpc(image=sharp, top_k=CROPS).matches}
        found = site.grpc(fusion=fusion, top_k=CROPS, **images).matches
        return float(
            np.corrcoef([m.score for m in found], [alone[m.crop.crop_id] for m in found])[0, 1]
        )

    assert nearness(search_pb2.FUSION_QUALITY) > nearness(search_pb2.FUSION_MEAN)


def test_bad_examples_are_named(site: Site) -> None:
    vector = Embedding(values=b"\0" * 8, dimension=2, model_version=site.service.model)
    unknown = "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "query"),
        ({"positives": [search_pb2.Example()]}, "positives[0]"),
        ({"positives": [search_pb2.Example(image=b"x")]}, "positives[0].image"),
        ({"positives": [example(site, 1), example(site, 2, weight=math.nan)]},
         "positives[1].weight"),
        ({"crop_id": site.ids[0], "negatives": [search_pb2.Example(embedding=vector)]},
         "negatives[0].embedding.values"),
        ({"positives": [example(site, 1)] * 33}, "positives"),
        ({"crop_id": site.ids[0], "fusion": 9}, "fusion"),
        ({"positives": [example(site, 1, weight=2.0)], "fusion": search_pb2.FUSION_MAX},
         "positives[0].weight"),
    ]  # fmt: skip
    for fields, field in cases:
        found = refused(partial(site.grpc, **fields))
        assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, field), fields
    fields = {"positives": [search_pb2.Example(crop_id=unknown)]}
    assert refused(lambda: site.grpc(**fields))[0] is grpc.StatusCode.NOT_FOUND
    answer = site.client.post("/search", json={"positives": [{"crop_id": unknown}]})
    assert (answer.status_code, answer.json()["field"]) == (404, "positives[0].crop_id")
    answer = site.client.post("/search", json={"positives": [{"image": "no base64 !"}]})
    assert answer.status_code == 422


def test_cameras_of_all_stored_examples_are_left_out(site: Site) -> None:
    body = {
        "positives": [{"crop_id": site.ids[0]}, {"crop_id": site.ids[1]}],
        "own_camera": "exclude",
        "top_k": CROPS,
    }
    answer = site.rest(**body)
    assert len(answer["matches"]) == CROPS // 2
    assert {m["crop"]["camera_id"] for m in answer["matches"]} == {CAMERAS[2], CAMERAS[3]}


def test_the_command_takes_several_images(site: Site, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jpg").write_bytes(site.image(3000 + number))
    command = [
        "search", str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg"),
        "--unlike", str(tmp_path / "3.jpg"), "--fusion", "max", "--top-k", "4", "--json",
        "--target", site.service.grpc, "--gallery", "site",
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {match["crop_id"] for match in found["matches"][:2]} == {site.ids[1], site.ids[2]}
    assert 0 < found["matches"][0]["probability"] < 1
    again = CliRunner().invoke(app, [*command, "--page-token", found["next_page_token"]])
    both = found["matches"] + json.loads(again.stdout)["matches"]
    assert len({match["crop_id"] for match in both}) == 8
    told = CliRunner().invoke(app, [*command[:-5], *command[-4:], "--group-by", "camera"])
    assert told.exit_code == 0, told.stderr
    assert all(f"\n{name}\n" in f"\n{told.stdout}" for name in CAMERAS), told.stdout
    assert "4 groups" in told.stdout
