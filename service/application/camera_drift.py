"""The drift of every camera, looked at from time to time and told to the metrics.

It reads the catalog in the background, one camera at a time, and only cameras with a crop stored
since the last look: ingest does nothing for it. What is kept of a camera are two numbers. Every
replica, and a process started anew, finds the same ones: nothing is learnt in memory.

The reference are a camera's first crops that are still stored, embedded by the live model; so
promotion compares like with like, and retention moves the reference.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.catalog.drift_reads import camera_ends, newest_crops
from service.catalog.store import Catalog
from service.domain.drift import Drift, drift, over_cameras
from service.metric_settings import MetricSettings
from service.telemetry import (
    CAMERA_LOW_MATCH_SHARE,
    CAMERA_SHIFT,
    DRIFT_CAMERAS,
    DRIFT_CAMERAS_UNLABELLED,
    DRIFT_LOW_MATCH_SHARE,
    DRIFT_SHIFT,
)

__all__ = ["CameraDrift"]

BLOCK = 64


@dataclass(slots=True)
class _Looked:
    newest: int
    model_row: int
    found: Drift | None


class CameraDrift:
    """``look`` measures, and tells the metrics.

    Args:
        catalog: Where vectors are read.
        galleries: Whose cameras are looked at.
        settings: How many crops, and whether cameras get series of their own.
    """

    def __init__(self, catalog: Catalog, galleries: Galleries, settings: MetricSettings) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._settings = settings
        self._looked: dict[int, _Looked] = {}

    async def look(self) -> None:
        """Measure the cameras that have new crops.

        Raises:
            Unavailable: the catalog does not answer.
        """
        for gallery in self._galleries.all():
            await self._measure(gallery)
        self._tell()

    async def _measure(self, gallery: Gallery) -> None:
        record = gallery.record
        rows = [camera.camera_row for camera in gallery.cameras.values()]
        for start in range(0, len(rows), BLOCK):
            newest = await self._catalog.read(newest_crops, rows[start : start + BLOCK])
            for row, crop_row in newest.items():
                looked = self._looked.get(row)
                known = (crop_row, record.model_row)
                if looked is not None and (looked.newest, looked.model_row) == known:
                    continue
                ends = await self._catalog.read(
                    camera_ends, record, row, count=self._settings.drift_crops
                )
                found = None
                if ends is not None:
                    found = await asyncio.to_thread(drift, ends.first, ends.newest)
                self._looked[row] = _Looked(crop_row, record.model_row, found)

    def _tell(self) -> None:
        for gauge in (DRIFT_SHIFT, DRIFT_LOW_MATCH_SHARE, CAMERA_SHIFT, CAMERA_LOW_MATCH_SHARE):
            gauge.clear()
        labels = 0
        measured: dict[str, Drift]
        for gallery in self._galleries.all():
            measured = {}
            for name, camera in sorted(gallery.cameras.items()):
                looked = self._looked.get(camera.camera_row)
                if looked is not None and looked.found is not None:
                    measured[name] = looked.found
            _tell_quantiles(gallery.name, list(measured.values()))
            DRIFT_CAMERAS.labels(gallery.name, "measured").set(len(measured))
            few = len(gallery.cameras) - len(measured)
            DRIFT_CAMERAS.labels(gallery.name, "too_few").set(few)
            if self._settings.camera_labels:
                for name, found in measured.items():
                    labels += 1
                    if labels <= self._settings.max_camera_labels:
                        CAMERA_SHIFT.labels(gallery.name, name).set(found.shift)
                        share = CAMERA_LOW_MATCH_SHARE.labels(gallery.name, name)
                        share.set(found.low_match_share)
        DRIFT_CAMERAS_UNLABELLED.set(max(0, labels - self._settings.max_camera_labels))


def _tell_quantiles(gallery: str, found: list[Drift]) -> None:
    for quantile, value in over_cameras([one.shift for one in found]).items():
        DRIFT_SHIFT.labels(gallery, f"{quantile:g}").set(value)
    for quantile, value in over_cameras([one.low_match_share for one in found]).items():
        DRIFT_LOW_MATCH_SHARE.labels(gallery, f"{quantile:g}").set(value)
