"""A gallery verified over REST; the answer is the report, without progress."""

from __future__ import annotations

from contextlib import aclosing

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from resight.errors import Unavailable
from service.transport.rest.departure import unless_departed
from service.transport.rest.strict_route import StrictRoute
from service.verification.findings import Report
from service.verification.running import Verification

__all__ = ["router"]


class VerifyBody(BaseModel):
    """How much is compared."""

    model_config = ConfigDict(extra="forbid")

    all_images: bool = False
    sample: int | None = None
    repair: bool = False


class Finding(BaseModel):
    """One kind of fault."""

    kind: str
    count: int
    meaning: str
    examples: list[str]


class GalleryReport(BaseModel):
    """One gallery compared."""

    gallery: str
    model_version: str
    position: int
    crops: int
    rows: int
    images: int
    images_read: int
    findings: list[Finding]
    repaired: int

    @classmethod
    def of(cls, report: Report) -> GalleryReport:
        """From the domain."""
        return cls(
            gallery=report.gallery,
            model_version=report.model_version,
            position=report.position,
            crops=report.crops,
            rows=report.rows or 0,
            images=report.images,
            images_read=report.images_read,
            findings=[
                Finding(
                    kind=each.kind,
                    count=each.count,
                    meaning=each.meaning,
                    examples=list(each.examples),
                )
                for each in report.findings
            ],
            repaired=report.repaired,
        )


def router(verification: Verification) -> APIRouter:
    """The route below a gallery."""
    routes = APIRouter(tags=["galleries"], route_class=StrictRoute)

    @routes.post("/verify")
    async def verify_gallery(gallery: str, request: Request, body: VerifyBody) -> GalleryReport:
        """Compare catalog, index and images; what is wrong is in the report."""

        async def whole() -> Report:
            asked = verification.verify(
                gallery, all_images=body.all_images, sample=body.sample, repair=body.repair
            )
            async with aclosing(asked) as told:
                async for each in told:
                    if isinstance(each, Report):
                        return each
            raise Unavailable("the verification ended without a report; try again")

        return GalleryReport.of(await unless_departed(request, whole()))

    return routes
