"""From bundles and files to a verdict, through the command line, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from adapt.commands import app
from adapt.gate import GateSettings, judge
from adapt.gate.observation import observe
from adapt.gate.perturbation import perturb
from adapt.gate.sample import describe, draw
from resight.bundle.importing import InputContract, import_encoder
from resight.bundle.reader import open_bundle
from resight.crops import CropRef, Preprocessing, open_source, prepare
from resight.errors import InvalidArgument, NotFound

SETTINGS = GateSettings(sample=240, copies=80, least=100, min_rank=2.0)
MakeBundle = Callable[..., Path]
CropMaker = Callable[..., Path]


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Colour encoders of a 4 x 2 grid whose values go through a matrix; (32, 16) pixels."""
    folder = tmp_path_factory.mktemp("encoders")

    def make(name: str, matrix: np.ndarray, *, height: int = 32) -> Path:
        cell = [height // 4, 8]
        nodes = [
            helper.make_node("AveragePool", ["x"], ["g"], kernel_shape=cell, strides=cell),
            helper.make_node("Reshape", ["g", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "matrix"], ["y"]),
        ]
        graph = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, height, 16])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", matrix.shape[1]])],
            [
                numpy_helper.from_array(np.array([-1, 24], dtype=np.int64), "shape"),
                numpy_helper.from_array(matrix.astype(np.float32), "matrix"),
            ],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        contract = InputContract(
            layout="NCHW", height=height, width=16, scale=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
        )
        import_encoder(
            model.SerializeToString(),
            contract,
            output=folder / name,
            preprocessing=Preprocessing(height, 16),
        )
        return folder / name

    return make


@pytest.fixture(scope="session")
def good(make_bundle: MakeBundle) -> Path:
    """Sees all colours."""
    return make_bundle("good", np.eye(24))


@pytest.fixture(scope="session")
def poor(make_bundle: MakeBundle) -> Path:
    """Sees four numbers of 24, repeated."""
    seen = np.linalg.qr(np.random.default_rng(0).standard_normal((24, 4)))[0]
    return make_bundle("poor", seen @ seen.T)


@pytest.fixture
def crops(make_crops: CropMaker) -> Path:
    """240 crops of 20 people at three cameras."""
    return make_crops(identities=20, each=12, cameras=3, noise=30.0)


def test_an_encoder_passes_against_itself(good: Path, crops: Path) -> None:
    verdict = judge(good, good, crops, baseline=good, settings=SETTINGS)
    assert verdict.passed
    assert verdict.score == verdict.baseline_score == 0.0
    assert verdict.crops == 240
    assert verdict.candidate == verdict.live == open_bundle(good).model_version
    names = {signal.name for signal in verdict.signals}
    assert {"silhouette", "mixing", "track_agreement", "likeness"} <= names
    json.dumps(verdict.payload(), allow_nan=False)


def test_a_poor_encoder_is_refused_and_a_good_one_passes(
    good: Path, poor: Path, crops: Path
) -> None:
    down = judge(poor, good, crops, settings=SETTINGS)
    assert not down.passed
    assert down.score < -0.1
    assert any("instead of" in reason for reason in down.reasons)
    assert judge(good, poor, crops, settings=SETTINGS).passed


def test_the_verdict_does_not_hang_on_the_identities_in_names(
    good: Path, poor: Path, crops: Path, tmp_path: Path
) -> None:
    """Every crop under an identity of its own, in the same order: the same figures."""
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, path in enumerate(sorted(crops.iterdir())):
        camera = path.name.split("_")[1]
        (renamed / f"{number:04d}_{camera}_000000_00.png").write_bytes(path.read_bytes())
    first, second = (judge(poor, good, source, settings=SETTINGS) for source in (crops, renamed))
    assert first.signals == second.signals


def test_too_few_crops_are_refused_not_guessed(good: Path, make_crops: CropMaker) -> None:
    few = make_crops(identities=5, each=6, cameras=2)
    verdict = judge(good, good, few, baseline=good)
    assert not verdict.passed
    assert verdict.reasons == ("crops: 30 usable ones are too few to judge by, 200 are needed",)


def test_a_candidate_that_gives_no_vectors_is_told_apart(
    good: Path, crops: Path, tmp_path: Path
) -> None:
    """The sound encoder beside it is still heard to the end."""
    sound = open_bundle(good)
    model = onnx.load(sound.encoder_path)
    for node in model.graph.node:
        node.output[:] = ["fine" if name == "embeddings" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nought"))
    model.graph.node.append(helper.make_node("Mul", ["fine", "nought"], ["zero"]))
    model.graph.node.append(helper.make_node("Div", ["zero", "zero"], ["embeddings"]))
    (tmp_path / "encoder.onnx").write_bytes(model.SerializeToString())
    broken = replace(sound, directory=tmp_path)
    seen = observe([broken, sound], open_source(crops).scan().require_crops(), copies=4, seed=1)
    assert "unit vectors are needed" in seen.of[0].fault
    assert not seen.of[0].features.any()
    assert not seen.of[1].fault
    assert np.linalg.norm(seen.of[1].features, axis=1) == pytest.approx(1.0, abs=1e-4)


def test_what_cannot_be_read_is_an_error(good: Path, crops: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        judge(good, good, tmp_path / "nowhere", settings=SETTINGS)
    with pytest.raises((NotFound, InvalidArgument)):
        judge(tmp_path / "nowhere", good, crops, settings=SETTINGS)


def test_features_are_those_of_each_crop_alone(
    make_bundle: MakeBundle, good: Path, crops: Path
) -> None:
    """Encoders of two input sizes see the same crops; one that is no image is left out for both."""
    tall = make_bundle("tall", np.eye(24), height=64)
    bundles = [open_bundle(good), open_bundle(tall)]
    (crops / "0001_c1s1_999999_00.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    refs = [CropRef(path) for path in sorted(crops.iterdir())]
    seen = observe(bundles, refs, copies=5, seed=3)
    assert [skipped.path.name for skipped in seen.skipped] == ["0001_c1s1_999999_00.png"]
    assert len(seen.kept) == len(refs) - 1
    for bundle, observation in zip(bundles, seen.of, strict=True):
        size = bundle.preprocessing

        def expected(image: np.ndarray, height: int = size.height) -> np.ndarray:
            grid = image.reshape(4, height // 4, 2, 8, 3).mean(axis=(1, 3)) / 255
            values = ((grid - 0.5) / 0.5).transpose(2, 0, 1).reshape(-1)
            return np.asarray(values / np.linalg.norm(values))

        images = [prepare(ref.path.read_bytes(), size) for ref in seen.kept]
        for row in (0, 5, 100):
            assert observation.features[row] == pytest.approx(expected(images[row]), abs=1e-4)
        # The fifth of the first five is no image.
        assert len(observation.copies) == 4
        for row, copy in enumerate(observation.copies):
            changed = perturb(images[row], seed=3, crop=row)
            assert copy == pytest.approx(expected(changed), abs=1e-4)
            assert copy @ observation.features[row] < 0.9999


def test_a_copy_depends_on_seed_and_crop_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3)).astype(np.uint8)
    copies = [perturb(image, seed=seed, crop=crop) for seed, crop in ((1, 2), (1, 2), (1, 3))]
    assert np.array_equal(copies[0], copies[1])
    assert not np.array_equal(copies[0], copies[2])
    assert copies[0].shape == image.shape
    assert copies[0].dtype == np.uint8


def _tracked(count: int) -> list[CropRef]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        CropRef(
            Path(f"{n:05d}.jpg"),
            camera=f"c{n % 3}",
            track=f"t{n // 12}",
            capture_time=start + timedelta(seconds=n),
        )
        for n in range(count)
    ]


def test_the_draw_is_seeded_and_knows_tracks() -> None:
    crops = _tracked(600)
    drawn = draw(crops, 100, seed=1)
    assert len(drawn) == len(set(drawn)) == 100
    assert drawn == draw(list(reversed(crops)), 100, seed=1)
    assert drawn != draw(crops, 100, seed=2)
    sample = describe(drawn)
    assert sample.cameras is not None
    companions = np.bincount(sample.sightings.tracks)
    assert (companions[companions > 0] >= 2).mean() > 0.8
    assert len(draw(crops[:50], 100, seed=1)) == 50


def test_a_sample_says_what_it_lacks() -> None:
    half = [CropRef(Path(f"{n}.jpg"), camera="a" if n % 2 else None) for n in range(10)]
    assert describe(half).cameras is None
    assert "5 of 10 crops have no camera" in describe(half).notes[0]
    alone = [CropRef(Path(f"{n}.jpg"), camera="a") for n in range(10)]
    assert describe(alone).cameras is None
    assert "all crops come from camera a" in describe(alone).notes[0]


def test_the_command_exits_3_when_it_refuses(
    good: Path, poor: Path, crops: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "gate.toml"
    settings.write_text("sample = 240\ncopies = 80\nleast = 100\nmin_rank = 2.0\n")
    common = ["gate", "--crops", str(crops), "--config", str(settings), "--json"]
    runner = CliRunner()
    refused = runner.invoke(app, [*common, "--candidate", str(poor), "--live", str(good)])
    assert refused.exit_code == 3
    payload = json.loads(refused.stdout)
    assert payload["passed"] is False
    assert payload["settings"]["sample"] == 240
    assert payload["signals"]["silhouette"]["weight"] == 1.0

    before = open_bundle(good).model_version
    passed = runner.invoke(
        app, [*common, "--candidate", str(good), "--live", str(poor), "--attach"]
    )
    assert passed.exit_code == 0, passed.output
    attached = open_bundle(good)
    assert attached.model_version == before
    assert json.loads(attached.file("gate.json").read_text())["passed"] is True


def test_unknown_settings_are_refused_by_name(good: Path, crops: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "gate.toml"
    wrong.write_text("margine = 0.2\n")
    result = CliRunner().invoke(
        app,
        ["gate", "--crops", str(crops), "--candidate", str(good), "--live", str(good),
         "--config", str(wrong)],
    )  # fmt: skip
    assert isinstance(result.exception, InvalidArgument)
    assert result.exception.field == "margine"
