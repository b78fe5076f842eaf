"""Whether simulated crops pose the problem: not solved by colour, not without clues, not leaked."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from resight.simulate.camera import cameras
from resight.simulate.render import Studio
from resight.simulate.schedule import schedule
from resight.simulate.settings import SimulationSettings

Crops = tuple[NDArray[np.float64], NDArray[np.str_], NDArray[np.str_], NDArray[np.str_]]


@pytest.fixture(scope="module")
def crops(site: Path) -> Crops:
    """Pixels (N, 64, 32, 3), identity, camera and track of the test people."""
    rows = []
    for split in ("query", "gallery"):
        with (site / f"{split}.csv").open(newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["identity"] != "0"]
    pixels = np.stack(
        [np.asarray(Image.open(site / row["path"]).resize((32, 64)), float) for row in rows]
    )
    return pixels, *(
        np.array([row[key] for row in rows]) for key in ("identity", "camera", "track")
    )


def colour_features(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean colour of eight bands of the middle of the crop, where the person is."""
    middle = pixels[:, :, 8:24]
    return middle.reshape(len(pixels), 8, 8, 16, 3).mean((2, 3)).reshape(len(pixels), -1)


def nearest_elsewhere(
    features: NDArray[np.float64], identity: NDArray[np.str_], apart: NDArray[np.str_]
) -> tuple[float, float]:
    """Share of crops whose nearest crop with another ``apart`` is the same person; and chance."""
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1)
    allowed = apart[:, None] != apart[None]
    same = identity[:, None] == identity[None]
    nearest = np.where(allowed, distance, np.inf).argmin(1)
    hits = same[np.arange(len(same)), nearest].mean()
    chance = (same & allowed).sum(1) / allowed.sum(1)
    return float(hits), float(chance.mean())


def test_colour_helps_across_cameras_but_does_not_solve_it(crops: Crops) -> None:
    pixels, identity, camera, _ = crops
    hits, chance = nearest_elsewhere(colour_features(pixels), identity, camera)
    # Three standard errors of a guesser's share over this many crops.
    error = 3 * np.sqrt(chance * (1 - chance) / len(pixels))
    assert hits > chance + error
    assert hits < 0.6


def test_a_collapsed_encoder_is_at_chance(crops: Crops) -> None:
    pixels, identity, camera, _ = crops
    rng = np.random.default_rng(0)
    nothing = rng.normal(size=(len(pixels), 16))
    hits, chance = nearest_elsewhere(nothing, identity, camera)
    assert abs(hits - chance) < 4 * np.sqrt(chance * (1 - chance) / len(pixels))


def test_the_camera_shows_in_the_colours(crops: Crops) -> None:
    """The nearest crop of another tracklet is from the same camera far more often than by chance:
    the bias that a re-identification encoder has to lose."""
    pixels, _, camera, track = crops
    whole = pixels.reshape(len(pixels), 8, 8, 32, 3).mean((2, 3)).reshape(len(pixels), -1)
    hits, chance = nearest_elsewhere(whole, camera, track)
    assert hits > 2 * chance


def test_consecutive_crops_of_a_track_look_alike(crops: Crops) -> None:
    pixels, identity, camera, track = crops
    flat = colour_features(pixels)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
    within = distance[(track[:, None] == track[None]) & (distance > 0)].mean()
    across = distance[(identity[:, None] == identity[None]) & (camera[:, None] != camera[None])]
    assert within < 0.6 * across.mean()


def test_no_two_crops_are_the_same_picture(crops: Crops) -> None:
    pixels = crops[0]
    assert len({crop.tobytes() for crop in pixels}) == len(pixels)


def test_a_person_looks_different_from_behind(settings: SimulationSettings) -> None:
    """Turning a backpacker round moves more pixels than the next step of the same walk does."""
    from resight.simulate.canvas import Canvas
    from resight.simulate.figure import draw_person
    from resight.simulate.person import people
    from resight.simulate.skeleton import Pose
    from resight.simulate.view import View

    crowd = people(0, population=0, count=60, group=1)
    wearer = next(person for person in crowd if person.bag == "backpack")

    def drawn(yaw: float, phase: float) -> NDArray[np.float32]:
        view = View(yaw, 0.1, 8.0, 60.0, (32.0, 120.0), (0.0, 0.7, 0.71), 0.6)
        canvas = Canvas(128, 64, view)
        draw_person(canvas, wearer, Pose(phase, standing=False, carry=0.0))
        return canvas.layer()

    front, step, back = drawn(0.0, 0.3), drawn(0.0, 0.6), drawn(np.pi, 0.3)
    torso = slice(40, 70)
    turned = np.abs(front[torso] - back[torso])[..., :3].mean()
    stepped = np.abs(front[torso] - step[torso])[..., :3].mean()
    assert turned > 3 * stepped
    # The silhouettes cover about the same: it is the clothes that change, not the person's size.
    assert back[..., 3].sum() == pytest.approx(front[..., 3].sum(), rel=0.15)


def test_cameras_agree_without_spread(settings: SimulationSettings) -> None:
    """With no spread, what differs between cameras is place and light, not colour rendition."""
    alike = cameras(5, 6, spread=0.0)
    assert {camera.gains for camera in alike} == {(1.0, 1.0, 1.0)}
    assert {camera.exposure for camera in alike} == {1.0}
    apart = cameras(5, 6, spread=1.0)
    assert len({camera.gains for camera in apart}) == 6


def test_a_false_detection_shows_nobody() -> None:
    wanted = SimulationSettings(identities=4, cameras=2, crops=200, seed=1, distractor_share=0.4)
    plan = schedule(wanted, cameras(1, 2))
    empty = [shot for shot in plan if shot.person < 0]
    assert empty
    assert all(shot.identity == 0 and shot.split == "gallery" for shot in empty)
    assert len(Studio(wanted).picture(empty[0])) > 300
