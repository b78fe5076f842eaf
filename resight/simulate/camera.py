"""Cameras: where they hang, what they look at, and how they distort light into pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from resight.simulate.randomness import Purpose, stream
from resight.simulate.scene import SCENE_KINDS

__all__ = ["Camera", "cameras", "develop"]

_ZONES = ("gate", "street", "hall", "car park", "station", "square")


@dataclass(frozen=True)
class Camera:
    """One camera of the site.

    Args:
        index: Number from 1.
        name: Identifier in the manifests.
        zone: Part of the site it looks at.
        scene: Kind of background.
        position: Metres east and north on the site; sets travel times.
        heading: Yaw in radians of people who walk along its main axis.
        tilt, distance: See ``View``.
        light: Direction to the light (right, towards the camera, up), unit.
        ambient: Share of diffuse light.
        height: Usual height of a person's box in pixels.
        gains: White-balance factor of each channel.
        mixing: Saturation: 0 is grey, 1 leaves colours alone.
        exposure, gamma, contrast, haze: Tone curve.
        blur: Standard deviation of the optical blur, pixels at a height of 128.
        noise: Standard deviation of the sensor noise, 0..255 scale.
        quality: JPEG quality.
        sloppiness: Standard deviation of the detector's box error, share of the height.
        clutter: Chance that something stands in front of a person.
    """

    index: int
    name: str
    zone: str
    scene: str
    position: tuple[float, float]
    heading: float
    tilt: float
    distance: float
    light: tuple[float, float, float]
    ambient: float
    height: int
    gains: tuple[float, float, float]
    mixing: float
    exposure: float
    gamma: float
    contrast: float
    haze: float
    blur: float
    noise: float
    quality: int
    sloppiness: float
    clutter: float


def cameras(seed: int, count: int, *, spread: float = 1.0) -> tuple[Camera, ...]:
    """Draw ``count`` cameras.

    Args:
        seed: Seed of the simulation.
        count: Number of cameras.
        spread: How far the cameras' colours and sharpness lie apart; 0 makes them alike.
    """
    return tuple(_camera(seed, number, spread) for number in range(1, count + 1))


def _camera(seed: int, number: int, spread: float) -> Camera:
    rng = stream(seed, Purpose.CAMERA, number)
    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.4, 1.2)
    # Warm to cold is the axis along which lamps and daylight differ most; tint is the smaller one.
    warmth, tint = rng.normal(0.0, 0.09 * spread), rng.normal(0.0, 0.03 * spread)
    return Camera(
        index=number,
        name=f"c{number}",
        zone=_ZONES[(number - 1) % len(_ZONES)],
        scene=SCENE_KINDS[int(rng.integers(len(SCENE_KINDS)))],
        position=(float(rng.uniform(0, 300)), float(rng.uniform(0, 200))),
        heading=float(rng.normal(0.0, 0.7)),
        tilt=float(rng.uniform(0.03, 0.4)),
        distance=float(rng.uniform(5.0, 12.0)),
        light=(
            float(np.cos(elevation) * np.sin(azimuth)),
            float(np.cos(elevation) * np.cos(azimuth)),
            float(np.sin(elevation)),
        ),
        ambient=float(rng.uniform(0.55, 0.8)),
        height=int(rng.choice((96, 112, 128, 144, 160))),
        gains=(float(np.exp(warmth)), float(np.exp(tint)), float(np.exp(-warmth))),
        mixing=float(np.clip(rng.normal(0.94, 0.12 * spread), 0.45, 1.2)),
        exposure=float(np.exp(rng.normal(0.0, 0.13 * spread))),
        gamma=float(np.exp(rng.normal(0.0, 0.12 * spread))),
        contrast=float(np.clip(rng.normal(0.97, 0.1 * spread), 0.65, 1.25)),
        haze=float(max(0.0, rng.normal(2.0, 6.0 * spread))),
        blur=float(rng.uniform(0.2, 0.3 + 0.6 * spread)),
        noise=float(rng.uniform(1.0, 1.5 + 4.0 * spread)),
        quality=int(rng.integers(60, 93)),
        sloppiness=float(rng.uniform(0.01, 0.035)),
        clutter=float(rng.uniform(0.03, 0.16)),
    )


def develop(
    camera: Camera, picture: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn true colours (H, W, 3) on the 0..255 scale into what the camera records."""
    height = picture.shape[0]
    light = picture * (np.asarray(camera.gains, dtype=np.float32) * camera.exposure)
    # The automatic exposure wanders from moment to moment, and the light is uneven.
    light *= float(np.exp(rng.normal(0.0, 0.08)))
    above, below = rng.uniform(0.88, 1.1, size=2)
    light *= np.linspace(above, below, num=height, dtype=np.float32)[:, None, None]
    tone = 255.0 * np.power(np.clip(light / 255.0, 0.0, 1.0), camera.gamma)
    grey = tone @ np.array((0.299, 0.587, 0.114), dtype=np.float32)
    tone = grey[..., None] + camera.mixing * (tone - grey[..., None])
    tone = 118.0 + camera.contrast * (tone - 118.0) + camera.haze
    image = Image.fromarray(np.clip(tone, 0, 255).astype(np.uint8))
    radius = camera.blur * height / 128.0 * float(rng.uniform(0.8, 1.4))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32)
    noise = rng.standard_normal(soft.shape, dtype=np.float32) * camera.noise
    recorded: NDArray[np.uint8] = np.clip(soft + noise, 0, 255).astype(np.uint8)
    return recorded
