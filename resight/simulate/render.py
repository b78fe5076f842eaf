"""One crop: a person before a background, behind an obstacle, in a detector's box."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from resight.simulate.camera import Camera, cameras, develop
from resight.simulate.canvas import Canvas
from resight.simulate.encounter import Encounter, encounter
from resight.simulate.figure import draw_person
from resight.simulate.person import Person, people
from resight.simulate.randomness import Purpose, stream
from resight.simulate.scene import Scene, scene
from resight.simulate.schedule import BYSTANDERS, TEST, TRAIN, Shot, bystander_count
from resight.simulate.settings import SimulationSettings
from resight.simulate.skeleton import Pose
from resight.simulate.view import View

__all__ = ["Studio"]


class Studio:
    """The people and cameras of one simulation, and how to picture any shot of it.

    Holds no state that drawing changes, so that shots can be drawn in any order and process.
    """

    def __init__(self, settings: SimulationSettings) -> None:
        self._settings = settings
        seed, train = settings.seed, settings.train_identities
        group = settings.look_alikes
        sizes = {TRAIN: train, TEST: settings.identities - train}
        self._crowds: dict[int, tuple[Person, ...]] = {
            crowd: people(seed, population=crowd, count=count, group=group)
            for crowd, count in sizes.items()
        }
        self._bystanders = people(
            seed, population=BYSTANDERS, count=bystander_count(settings), group=1
        )
        self._crowds[BYSTANDERS] = self._bystanders
        self._cameras = cameras(seed, settings.cameras, spread=settings.camera_spread)
        self._scenes: dict[int, Scene] = {}

    def picture(self, shot: Shot) -> bytes:
        """Draw a shot as a JPEG file."""
        camera = self._cameras[shot.camera - 1]
        rng = stream(self._settings.seed, Purpose.CROP, shot.number)
        meeting = encounter(self._settings.seed, shot.visit, camera, len(self._bystanders))
        person = None if shot.person < 0 else self._crowds[shot.crowd][shot.person]
        picture = self._compose(camera, meeting, person, shot.step, rng)
        recorded = develop(camera, picture * meeting.brightness, rng)
        file = io.BytesIO()
        Image.fromarray(recorded).save(file, "JPEG", quality=camera.quality)
        return file.getvalue()

    def _compose(
        self,
        camera: Camera,
        meeting: Encounter,
        person: Person | None,
        step: int,
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        scale = meeting.size * (1.0 + meeting.growth * step)
        height = max(40, round(camera.height * scale))
        width = max(20, round(height * rng.uniform(0.38, 0.46)))
        across = meeting.place[0] + meeting.drift * step + rng.normal(0.0, 0.003)
        picture = self._scene(camera).cut(across, meeting.place[1], height, width)
        if person is None:
            return picture
        pose = Pose(
            meeting.phase + meeting.cadence * step * (0.1 if meeting.standing else 1.0),
            meeting.standing,
            meeting.carry,
        )
        view = _frame(camera, meeting, person, step, (height, width), rng)
        _cast_shadow(picture, view)
        if meeting.companion >= 0:
            friend = self._bystanders[meeting.companion]
            self._overlay(picture, friend, pose, _moved(view, meeting.beside, 0.97), rng)
        self._overlay(picture, person, pose, view, rng)
        if meeting.obstacle == "passer_by":
            other = self._bystanders[meeting.passer_by]
            near = _moved(view, meeting.obstacle_at * 1.6, 1.08, turn=2.0)
            self._overlay(picture, other, pose, near, rng)
        elif meeting.obstacle:
            _obstruct(picture, meeting, camera)
        return picture

    def _overlay(
        self,
        picture: NDArray[np.float32],
        person: Person,
        pose: Pose,
        view: View,
        rng: np.random.Generator,
    ) -> None:
        height, width = picture.shape[:2]
        canvas = Canvas(height, width, view)
        draw_person(canvas, person, pose)
        layer = canvas.layer()
        # Cloth is not flat: folds and wear mottle it at the scale of a hand.
        coarse = rng.normal(1.0, 0.09, size=(height // 7 + 2, width // 7 + 2)).astype(np.float32)
        folds = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
        layer[..., :3] *= np.asarray(folds, dtype=np.float32)[..., None]
        picture *= 1.0 - layer[..., 3:]
        picture += layer[..., :3]

    def _scene(self, camera: Camera) -> Scene:
        if camera.index not in self._scenes:
            self._scenes[camera.index] = scene(
                self._settings.seed, camera.index, camera.scene, camera.height
            )
        return self._scenes[camera.index]


def _frame(
    camera: Camera,
    meeting: Encounter,
    person: Person,
    step: int,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> View:
    """The view in which the person fills the detector's imperfect box."""
    height, width = size
    yaw = meeting.yaw + meeting.turn * step
    still = View(yaw, camera.tilt, camera.distance, 1.0, (0.0, 0.0), camera.light, camera.ambient)
    ends = still.project(((0.0, 0.0, person.height), (0.0, 0.05, -0.03)))[:, 1]
    top, tall = float(ends[0]), float(ends[1] - ends[0])
    slack = camera.sloppiness
    fill = 0.95 * float(np.exp(rng.normal(0.0, 1.2 * slack)))
    lift = rng.normal(0.0, slack)
    if rng.random() < 0.04:
        # A truncated box: the detector lost the legs.
        fill *= float(rng.uniform(1.2, 1.5))
        lift = (fill - 0.95) / 2
    scale = fill * height / tall
    centre = height * (0.5 + lift)
    x = width * (0.5 + rng.normal(0.0, 1.3 * slack))
    y = centre - scale * (top + tall / 2)
    return View(
        yaw, camera.tilt, camera.distance, scale, (float(x), float(y)), camera.light, camera.ambient
    )


def _moved(view: View, metres: float, zoom: float, turn: float = 0.0) -> View:
    origin = (view.origin[0] + metres * view.scale, view.origin[1] + (zoom - 1.0) * view.scale)
    scale = view.scale * zoom
    return View(view.yaw + turn, view.tilt, view.distance, scale, origin, view.light, view.ambient)


def _cast_shadow(picture: NDArray[np.float32], view: View) -> None:
    height, width = picture.shape[:2]
    mask = Image.new("L", (width, height), 0)
    x, y, scale = view.origin[0] - view.light[0] * 0.3 * view.scale, view.origin[1], view.scale
    box = (x - 0.42 * scale, y - 0.09 * scale, x + 0.42 * scale, y + 0.08 * scale)
    ImageDraw.Draw(mask).ellipse(box, fill=int(150 * (1.0 - view.ambient) + 30))
    soft = mask.filter(ImageFilter.GaussianBlur(max(1.0, 0.03 * scale)))
    picture *= 1.0 - np.asarray(soft, dtype=np.float32)[..., None] / 255.0


def _obstruct(picture: NDArray[np.float32], meeting: Encounter, camera: Camera) -> None:
    height, width = picture.shape[:2]
    rng = stream(camera.index, Purpose.SCENE, camera.index, 7)
    shade = float(rng.uniform(40, 190))
    x = width * (0.5 + meeting.obstacle_at)
    layer = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(layer)
    if meeting.obstacle == "pillar":
        half = width * 0.16
        draw.rectangle((x - half, 0, x + half, height), fill=255)
    elif meeting.obstacle == "bin":
        draw.rectangle((x - width * 0.3, height * 0.66, x + width * 0.3, height), fill=255)
    else:
        for across, down in rng.uniform(-1, 1, size=(26, 2)):
            centre = (x + across * width * 0.35, height * (0.78 + 0.24 * down))
            size = height * 0.045
            draw.ellipse(
                (centre[0] - size, centre[1] - size, centre[0] + size, centre[1] + size), fill=255
            )
    cover = np.asarray(layer, dtype=np.float32)[..., None] / 255.0
    tone = np.array((shade, shade, shade), dtype=np.float32)
    if meeting.obstacle == "leaves":
        tone = np.array((58.0, 92.0, 48.0), dtype=np.float32)
    picture *= 1.0 - cover
    picture += cover * tone
