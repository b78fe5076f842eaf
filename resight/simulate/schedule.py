"""Who is seen where and when: itineraries over the site, cut into single-camera tracklets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from resight.simulate.camera import Camera
from resight.simulate.randomness import Purpose, stream
from resight.simulate.settings import MIN_CROPS_EACH, SimulationSettings

__all__ = [
    "BYSTANDERS",
    "FRAME_RATE",
    "START",
    "TEST",
    "TRAIN",
    "Shot",
    "bystander_count",
    "schedule",
]

TRAIN, TEST, BYSTANDERS = 0, 1, 2
"""Numbers of the three crowds; no person is in two."""

START = datetime(2025, 3, 3, 8, 0, 0, tzinfo=UTC)
FRAME_RATE = 25
_DAY_SECONDS = 9 * 3600
_LONGEST_TRACK = 12
_WALKING_SPEED = 1.35


@dataclass(frozen=True)
class Shot:
    """One crop to be drawn.

    Args:
        number: Number of the crop in the simulation; key of its own randomness.
        split: ``train``, ``query`` or ``gallery``.
        identity: Written in names and manifests; 0 is a distractor.
        crowd, person: Who is shown; person -1 shows nobody (a false detection).
        camera: Number of the camera, from 1.
        visit: Number of the tracklet in the simulation; key of its randomness.
        track: Name of the tracklet: camera and running number, nothing of the identity.
        step: Place in the tracklet, from 0.
        frame: Video frame since ``START`` at ``FRAME_RATE``.
        box: Number of the detection in its frame, from 1.
    """

    number: int
    split: str
    identity: int
    crowd: int
    person: int
    camera: int
    visit: int
    track: str
    step: int
    frame: int
    box: int = 1

    @property
    def capture_time(self) -> datetime:
        """When it was captured, UTC."""
        return START + timedelta(seconds=self.frame / FRAME_RATE)

    @property
    def name(self) -> str:
        """File name in Market-1501 style; carries the identity, as that set's names do."""
        return f"{self.identity:04d}_c{self.camera}s1_{self.frame:06d}_{self.box:02d}.jpg"


@dataclass(frozen=True)
class _Visit:
    split: str
    identity: int
    crowd: int
    person: int
    camera: int
    frames: tuple[int, ...]


def bystander_count(settings: SimulationSettings) -> int:
    """How many people walk about who belong to neither crowd."""
    return max(8, settings.distractors // 3)


def schedule(settings: SimulationSettings, site: tuple[Camera, ...]) -> list[Shot]:
    """Plan every crop: exactly ``settings.crops`` of them, by split and file name."""
    visits = [*_residents(settings, site), *_passers_by(settings)]
    visits.sort(key=lambda visit: (visit.camera, visit.frames, visit.crowd, visit.person))
    shots: list[Shot] = []
    for number, visit in enumerate(visits):
        track = f"c{visit.camera}-t{number + 1:06d}"
        shots.extend(
            Shot(0, visit.split, visit.identity, visit.crowd, visit.person, visit.camera, number,
                 track, step, frame)
            for step, frame in enumerate(visit.frames)
        )  # fmt: skip
    shots = _number_boxes(_draw_queries(settings, shots))
    shots.sort(key=lambda shot: (shot.split, shot.name))
    return [replace(shot, number=number) for number, shot in enumerate(shots)]


def _residents(settings: SimulationSettings, site: tuple[Camera, ...]) -> Iterator[_Visit]:
    rng = stream(settings.seed, Purpose.SCHEDULE, 0)
    wanted = settings.crops - settings.distractors
    shares = _apportion(rng, wanted, settings.identities, MIN_CROPS_EACH)
    for number, crops in enumerate(shares):
        train = number < settings.train_identities
        person = number if train else number - settings.train_identities
        route = stream(settings.seed, Purpose.SCHEDULE, 1, number)
        for camera, frames in _itinerary(route, crops, site):
            yield _Visit(
                "train" if train else "gallery",
                number + 1,
                TRAIN if train else TEST,
                person,
                camera,
                frames,
            )


def _passers_by(settings: SimulationSettings) -> Iterator[_Visit]:
    rng = stream(settings.seed, Purpose.DISTRACTOR)
    left = settings.distractors
    while left > 0:
        crops = min(left, int(rng.integers(1, 6)))
        left -= crops
        nobody = rng.random() < 0.2
        person = -1 if nobody else int(rng.integers(bystander_count(settings)))
        start = int(rng.uniform(0, _DAY_SECONDS) * FRAME_RATE)
        frames = _frames(rng, start, crops)
        yield _Visit(
            "gallery", 0, BYSTANDERS, person, int(rng.integers(1, settings.cameras + 1)), frames
        )


def _apportion(rng: np.random.Generator, total: int, parts: int, least: int) -> list[int]:
    """Split ``total`` into ``parts`` uneven numbers of at least ``least``."""
    spare = total - least * parts
    weights = rng.uniform(0.6, 1.4, size=parts)
    exact = spare * weights / weights.sum()
    whole = np.floor(exact).astype(np.int64)
    order = np.argsort(whole - exact, kind="stable")
    whole[order[: spare - int(whole.sum())]] += 1
    return [int(value) + least for value in whole]


def _itinerary(
    rng: np.random.Generator, crops: int, site: tuple[Camera, ...]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Visit cameras one after another, never two at once, until ``crops`` are taken."""
    most = min(len(site), crops // 2)
    distinct = max(2, int(rng.integers(max(2, (most * 2) // 3), most + 1))) if most > 2 else 2
    visits = max(distinct, -(-crops // _LONGEST_TRACK))
    chosen = rng.permutation(len(site))[:distinct]
    lengths = _apportion(rng, crops, visits, 2)
    clock = float(rng.uniform(0, _DAY_SECONDS))
    previous: Camera | None = None
    for visit, length in enumerate(lengths):
        camera = site[chosen[visit % distinct]]
        if previous is not None:
            way = np.hypot(
                camera.position[0] - previous.position[0], camera.position[1] - previous.position[1]
            )
            clock += float(way / _WALKING_SPEED * rng.uniform(1.0, 1.6) + rng.uniform(10, 90))
        frames = _frames(rng, int(clock * FRAME_RATE), length)
        yield camera.index, frames
        clock = (frames[-1] + 1) / FRAME_RATE
        previous = camera


def _frames(rng: np.random.Generator, start: int, length: int) -> tuple[int, ...]:
    spacing = int(rng.integers(5, 16))
    return tuple(start + spacing * step for step in range(length))


def _draw_queries(settings: SimulationSettings, shots: list[Shot]) -> list[Shot]:
    """Make one crop of each test identity and camera a query, as Market-1501 does."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, shot in enumerate(shots):
        if shot.crowd == TEST:
            groups.setdefault((shot.identity, shot.camera), []).append(place)
    drawn = list(shots)
    for (identity, camera), places in groups.items():
        rng = stream(settings.seed, Purpose.QUERY, identity, camera)
        place = places[int(rng.integers(len(places)))]
        drawn[place] = replace(shots[place], split="query")
    return drawn


def _number_boxes(shots: list[Shot]) -> list[Shot]:
    """Number the detections of a frame, so that no two crops of a camera share a name."""
    seen: dict[tuple[int, int], int] = {}
    numbered = []
    for shot in shots:
        key = (shot.camera, shot.frame)
        seen[key] = seen.get(key, 0) + 1
        numbered.append(replace(shot, box=seen[key]))
    return numbered
