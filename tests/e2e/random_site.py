"""A gallery of random crops behind a real service, and what every search of it must answer.

``Expected`` is written from docs/api.md alone: it ranks all rows by definition.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

from resight.v1 import gallery_service_pb2
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e.retrieval_site import INTERCEPT, SLOPE, START, Site, stamp

__all__ = ["CAMERAS", "IMAGES", "Asked", "RandomSite", "Row", "random_question"]

CAMERAS = ("c0", "c1", "c2", "c3", "c4")
ZONES = ("", "gate", "hall")
TRACKS = ("", "", "t1", "t2", "t3")
COLOURS = ("red", "blue", "green")
# Fewer images than crops: scores tie.
IMAGES = 50


@dataclass(frozen=True)
class Row:
    """A stored crop."""

    crop_id: str
    camera: str
    second: int
    track: str
    zone: str
    attributes: dict[str, str]
    image: int


@dataclass
class Asked:
    """A question: numbers of images or ids of crops, and everything else as REST takes it."""

    wanted: list[str | int]
    unwanted: list[str | int] = field(default_factory=list)
    weights: list[float | None] = field(default_factory=list)
    fusion: str = "mean"
    own: str = "any"
    window: int | None = None
    seen: tuple[str, int] | None = None
    min_score: float | None = None
    min_probability: float | None = None
    chosen: dict[str, Any] = field(default_factory=dict)

    def body(self, image: Callable[[int], str]) -> dict[str, Any]:
        """As JSON."""

        def example(value: str | int, weight: float | None = None) -> dict[str, Any]:
            made: dict[str, Any] = (
                {"crop_id": value} if isinstance(value, str) else {"image": image(value)}
            )
            return made if weight is None else made | {"weight": weight}

        made: dict[str, Any] = {
            "positives": [
                example(value, weight)
                for value, weight in zip(self.wanted, self.weights, strict=True)
            ],
            "negatives": [example(value) for value in self.unwanted],
            "fusion": self.fusion,
            "filter": {
                name: [{"key": key, "values": values} for key, values in value.items()]
                if name.endswith("attributes")
                else value
                for name, value in self.chosen.items()
                if name != "seconds"
            },
        }
        if "seconds" in self.chosen:
            start, end = (START + timedelta(seconds=value) for value in self.chosen["seconds"])
            made["filter"]["capture_range"] = {
                "start_time": start.isoformat(),
                "end_time": end.isoformat(),
            }
        if self.own != "any":
            made["own_camera"] = self.own
        if self.window is not None:
            made["own_camera_window_seconds"] = self.window
        if self.seen is not None:
            made["query_camera_id"] = self.seen[0]
            if self.own == "exclude_within":
                time = START + timedelta(seconds=self.seen[1])
                made["query_capture_time"] = time.isoformat()
        for name in ("min_score", "min_probability"):
            if getattr(self, name) is not None:
                made[name] = getattr(self, name)
        return made


class RandomSite:
    """The gallery and its rows."""

    def __init__(self, site: Site, gallery: str, seed: int) -> None:
        self.site, self.gallery = site, gallery
        self.rng = random.Random(seed)
        self.rows: dict[str, Row] = {}
        self.vectors = np.stack([site.vector(site.image(5000 + n)) for n in range(IMAGES)])
        for camera in CAMERAS:
            site.connection.gallery.CreateCamera(
                gallery_service_pb2.CreateCameraRequest(
                    gallery=gallery, camera=Camera(camera_id=camera)
                )
            )

    def add(self, count: int, *, distinct: bool = False) -> None:
        """Store random crops; distinct ones show an image each."""
        rng, made = self.rng, []
        for number in range(count):
            attributes = {key: rng.choice(COLOURS) for key in ("coat", "bag") if rng.random() < 0.5}
            image = number if distinct else rng.randrange(IMAGES)
            crop = Crop(
                camera_id=rng.choice(CAMERAS),
                capture_time=stamp(START + timedelta(seconds=rng.randrange(500))),
                track_id=rng.choice(TRACKS),
                zone=rng.choice(ZONES),
                attributes=attributes,
            )
            made.append((image, crop, number))
        answers = self.site.connection.gallery.IngestCrops(
            iter(
                gallery_service_pb2.IngestCropsRequest(
                    gallery=self.gallery,
                    sequence=number,
                    image=self.site.image(5000 + image),
                    crop=crop,
                )
                for image, crop, number in made
            )
        )
        for answer in answers:
            image, crop, _ = made[answer.sequence]
            second = crop.capture_time.seconds - int(START.timestamp())
            row = Row(
                answer.crop_id, crop.camera_id, second, crop.track_id, crop.zone,
                dict(crop.attributes), image,
            )  # fmt: skip
            # Of two that are duplicates the first stays as it is.
            self.rows.setdefault(answer.crop_id, row)

    def delete(self, crop_id: str) -> None:
        """Delete a crop."""
        self.site.connection.gallery.DeleteCrop(
            gallery_service_pb2.DeleteCropRequest(gallery=self.gallery, crop_id=crop_id)
        )
        del self.rows[crop_id]

    def vector(self, value: str | int) -> np.ndarray:
        """Of a stored crop or an image."""
        number = self.rows[value].image if isinstance(value, str) else value
        return np.asarray(self.vectors[number])

    def query(self, asked: Asked) -> np.ndarray:
        """What rows are compared with: (P, D)."""
        wanted = np.stack([self.vector(value) for value in asked.wanted])
        if asked.fusion == "max":
            return wanted
        weights = np.array([1.0 if weight is None else weight for weight in asked.weights])
        if asked.fusion == "quality" and len(wanted) > 1:
            cosines = wanted @ wanted.T
            agree = (cosines.sum(axis=1) - np.diag(cosines)) / (len(wanted) - 1)
            weights = weights * np.maximum(agree, 0) if (agree > 0).any() else weights
        mean = (weights[:, None] * wanted).sum(axis=0) / weights.sum()
        if asked.unwanted:
            mean = mean - 0.2 * np.mean([self.vector(value) for value in asked.unwanted], axis=0)
        if len(wanted) > 1 or asked.unwanted:
            mean /= np.linalg.norm(mean)
        return np.asarray(mean[None].astype(np.float32).astype(np.float64))

    def ranked(self, asked: Asked) -> list[tuple[str, float]]:
        """Ids and scores of every row that matches, best first."""
        query = self.query(asked)
        found = []
        for row in self.rows.values():
            if row.crop_id in asked.wanted + asked.unwanted or not self._passes(row, asked):
                continue
            vector = self.vectors[row.image]
            score = float(np.float32((query @ vector).max()))
            if asked.fusion == "max" and asked.unwanted:
                against = max(float(self.vector(value) @ vector) for value in asked.unwanted)
                if np.float32(against) > score:
                    continue
            if asked.min_score is not None and score < np.float32(asked.min_score):
                continue
            likely = 1 / (1 + np.exp(-(SLOPE * score + INTERCEPT)))
            if asked.min_probability is not None and likely < asked.min_probability:
                continue
            found.append((row.crop_id, score))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def _passes(self, row: Row, asked: Asked) -> bool:
        chosen = asked.chosen
        for name, value in (
            ("camera_ids", row.camera),
            ("zones", row.zone),
            ("track_ids", row.track),
        ):
            if f"include_{name}" in chosen and value not in chosen[f"include_{name}"]:
                return False
            if value in chosen.get(f"exclude_{name}", ()):
                return False
        has = [
            {key: key in row.attributes and (not values or row.attributes[key] in values)
             for key, values in chosen.get(f"{kind}_attributes", {}).items()}
            for kind in ("include", "exclude")
        ]  # fmt: skip
        if not all(has[0].values()) or any(has[1].values()):
            return False
        if "seconds" in chosen and not chosen["seconds"][0] <= row.second < chosen["seconds"][1]:
            return False
        stored = [self.rows[value] for value in asked.wanted if isinstance(value, str)]
        own = [(other.camera, other.second) for other in stored]
        own += [] if asked.seen is None else [asked.seen]
        if asked.own == "exclude":
            return all(row.camera != camera for camera, _ in own)
        if asked.own == "exclude_within":
            window = asked.window or 0
            return all(
                row.camera != camera or abs(row.second - second) > window for camera, second in own
            )
        return True


def random_question(made: RandomSite) -> Asked:
    """Any question that is not refused."""
    rng, ids = made.rng, sorted(made.rows)

    def examples(count: int) -> list[str | int]:
        return [
            rng.choice(ids) if rng.random() < 0.6 else rng.randrange(IMAGES) for _ in range(count)
        ]

    asked = Asked(examples(rng.choice([1, 1, 1, 2, 3])))
    asked.fusion = rng.choice(["mean", "max", "quality"])
    if asked.fusion == "quality":
        # Sharpness counts where every example is an image: left to a test of its own.
        asked.wanted[0] = rng.choice(ids)
    asked.unwanted = examples(rng.choice([0, 0, 0, 1, 2]))
    asked.weights = [
        rng.choice([None, 0.5, 3.0]) if asked.fusion != "max" else None for _ in asked.wanted
    ]
    if rng.random() < 0.4:
        asked.own = rng.choice(["exclude", "exclude_within"])
        asked.window = rng.choice([1, 20, 200]) if asked.own == "exclude_within" else None
        if not all(isinstance(value, str) for value in asked.wanted):
            asked.seen = (rng.choice(CAMERAS), rng.randrange(500))
    if rng.random() < 0.25:
        asked.min_score = rng.choice([-0.2, 0.0, 0.1, 0.5])
    if rng.random() < 0.25:
        asked.min_probability = rng.choice([0.01, 0.03, 0.3])
    chosen = asked.chosen
    for name, values in (("camera_ids", CAMERAS), ("zones", ZONES), ("track_ids", TRACKS)):
        for kind in ("include", "exclude"):
            if rng.random() < 0.2:
                chosen[f"{kind}_{name}"] = sorted(set(rng.sample(values, rng.choice([1, 2, 3]))))
    for kind in ("include", "exclude"):
        if rng.random() < 0.2:
            keys = rng.sample(["coat", "bag"], rng.choice([1, 2]))
            chosen[f"{kind}_attributes"] = {
                key: rng.sample(COLOURS, rng.choice([0, 1, 2])) for key in keys
            }
    if rng.random() < 0.3:
        chosen["seconds"] = tuple(sorted(rng.sample(range(500), 2)))
    return asked
