"""Galleries looked at for the command line: over a running service, or in a data directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resight.client.connection import connect
from resight.errors import InvalidArgument, Unavailable
from resight.v1.gallery_service_pb2 import GetGalleryStatsRequest, VerifyGalleryRequest
from service.settings import ServiceSettings
from service.verification.findings import KINDS, Report
from service.verification.running import DEFAULT_SAMPLE
from service.verification.stopped import verify_stopped

__all__ = ["running", "stats", "stopped", "text_of"]

Told = Callable[[str, int], None]


def stats(target: str, gallery: str) -> dict[str, Any]:
    """What a gallery of a running service holds."""
    with connect(target) as connection:
        found = connection.gallery.GetGalleryStats(GetGalleryStatsRequest(gallery=gallery))
    oldest, newest = (
        getattr(found, name).ToJsonString() if found.HasField(name) else None
        for name in ("oldest_capture_time", "newest_capture_time")
    )
    return {
        "gallery": gallery,
        "crops": found.crops,
        "searchable": found.searchable,
        "cameras": found.cameras,
        "model_version": found.model_version,
        "dimension": found.dimension,
        "oldest_capture_time": oldest,
        "newest_capture_time": newest,
    }


def running(
    target: str, gallery: str, all_images: bool, sample: int | None, repair: bool, told: Told
) -> dict[str, Any]:
    """The report of a running service on one of its galleries."""
    request = VerifyGalleryRequest(gallery=gallery, all_images=all_images, repair=repair)
    if sample is not None:
        request.sample = sample
    done: dict[str, int] = {}
    with connect(target) as connection:
        for message in connection.gallery.VerifyGallery(request):
            if message.HasField("report"):
                report = message.report
                return {
                    "gallery": report.gallery,
                    "model_version": report.model_version,
                    "position": report.position,
                    "crops": report.crops,
                    "rows": report.rows,
                    "images": report.images,
                    "images_read": report.images_read,
                    "repaired": report.repaired,
                    "findings": [
                        {
                            "kind": each.kind,
                            "count": each.count,
                            "meaning": each.meaning,
                            "examples": list(each.examples),
                        }
                        for each in report.findings
                    ],
                }
            stage, count = message.progress.stage, message.progress.done
            told(stage, count - done.get(stage, 0))
            done[stage] = count
    raise Unavailable("the service ended the verification without a report; try again")


def stopped(
    settings: ServiceSettings, all_images: bool, sample: int | None, repair: bool, told: Told
) -> list[dict[str, Any]]:
    """The reports on every gallery of a data directory."""
    if all_images and sample is not None:
        raise InvalidArgument("--all-images and --sample exclude each other", field="sample")
    wanted = None if all_images else DEFAULT_SAMPLE if sample is None else sample
    found = verify_stopped(settings, sample=wanted, repair=repair, told=told)
    return [_shown(report) for report in found]


def text_of(report: dict[str, Any]) -> str:
    """A report for people."""
    rows = "no index files" if report["rows"] is None else f"{report['rows']} in the index"
    lines = [
        f"{report['gallery']}: {report['crops']} crops, {rows}, {report['images']} images "
        f"({report['images_read']} read), change {report['position']}"
    ]
    lines += [
        f"  {each['count']} {each['kind']}: {each['meaning']} "
        f"({', '.join(each['examples'][:3])}{', …' if each['count'] > 3 else ''})"
        for each in report["findings"]
    ]
    if report["repaired"]:
        lines.append(f"  {report['repaired']} rows of the index were made right")
    if not report["findings"]:
        lines.append("  nothing is wrong")
    return "\n".join(lines)


def _shown(report: Report) -> dict[str, Any]:
    fields = ("gallery", "model_version", "position", "crops", "rows", "images", "images_read")
    return {
        **{name: getattr(report, name) for name in fields},
        "repaired": report.repaired,
        "findings": [
            {
                "kind": each.kind,
                "count": each.count,
                "meaning": KINDS[each.kind],
                "examples": list(each.examples),
            }
            for each in report.findings
        ],
    }
