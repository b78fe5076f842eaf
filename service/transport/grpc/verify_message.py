"""A verification as messages."""

from __future__ import annotations

from resight.v1 import gallery_service_pb2 as messages
from service.verification.findings import Report
from service.verification.running import Progress

__all__ = ["verify_message"]


def verify_message(told: Progress | Report) -> messages.VerifyGalleryResponse:
    """Progress, or the report."""
    if isinstance(told, Progress):
        progress = messages.VerifyGalleryResponse.Progress(stage=told.stage, done=told.done)
        return messages.VerifyGalleryResponse(progress=progress)
    return messages.VerifyGalleryResponse(
        report=messages.GalleryReport(
            gallery=told.gallery,
            model_version=told.model_version,
            position=told.position,
            crops=told.crops,
            rows=told.rows or 0,
            images=told.images,
            images_read=told.images_read,
            findings=[
                messages.GalleryReport.Finding(
                    kind=each.kind,
                    count=each.count,
                    meaning=each.meaning,
                    examples=each.examples,
                )
                for each in told.findings
            ],
            repaired=told.repaired,
        )
    )
