"""The HTML report of a run: what it found, and what it changed against the encoder before it.

One file without scripts or outside references, fit for a browser, a mail or an artefact store.
Crops are shown only where ``images`` is true; privacy mode turns them off.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from adapt.clustering.cluster import ClusterResult, ClusterSettings, cluster
from adapt.data.cameras import camera_codes
from adapt.evaluation.embedding import embed_refs
from adapt.report.neighbourhood import (
    CameraDrift,
    camera_drift,
    neighbour_lists,
    neighbourhood_change,
)
from adapt.report.pictures import crop_strip, map_2d, scatter_pair
from resight.bundle.bundle import Bundle
from resight.bundle.reader import open_bundle
from resight.crops import CropRef, open_source, prepare, read_crop
from resight.errors import NotFound

__all__ = ["ReportSettings", "write_report"]

_NO_CAMERA = "unknown"


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """How much a report looks at and shows.

    Attributes:
        sample: Crops looked at, at most; drawn by ``seed``.
        mapped: Of these, crops on the map, at most.
        neighbours: k of the neighbourhoods.
        sheets: Clusters shown, largest first, and most-changed crops.
        each: Crops shown of each.
        images: Whether crops are shown at all.
    """

    sample: int = 5000
    mapped: int = 1500
    neighbours: int = 20
    sheets: int = 12
    each: int = 16
    images: bool = True
    seed: int = 1
    threads: int = 2


def write_report(
    run: Path,
    *,
    live: Path,
    crops: str | Path,
    output: Path,
    settings: ReportSettings | None = None,
    verdict: dict[str, Any] | None = None,
) -> None:
    """Writes the report of ``run`` to ``output``.

    Args:
        run: Folder of a finished run; its bundle is the encoder after.
        live: Bundle of the encoder before.
        crops: The source that the run adapted to, or one like it.
        verdict: The gate's verdict as JSON values (``passed``, ``score``, ``reasons``), if any.

    Raises:
        NotFound: ``run`` holds no finished run.
        InvalidArgument, BundleCorrupt: The crops or bundles cannot be used.
    """
    settings = settings or ReportSettings()
    summary_path = run / "summary.json"
    if not summary_path.is_file() or not (run / "bundle").exists():
        raise NotFound(
            f"{run} holds no finished run: name the --output of `adapt run`", field="run"
        )
    summary = json.loads(summary_path.read_text(encoding="utf-8"))
    compared = _Compared.of(open_bundle(live), open_bundle(run / "bundle"), crops, settings)
    page = (
        _environment()
        .get_template("night.html.j2")
        .render(
            summary=summary,
            plot=_uri((run / "summary.png").read_bytes(), "png"),
            versions=compared.versions,
            looked_at=len(compared.refs),
            cameras=compared.drift(),
            change=compared.change,
            map=_uri(compared.map(), "png"),
            clusters=compared.cluster_sheets(),
            changed=compared.changed_sheets(),
            settings=settings,
            verdict=verdict,
        )
    )
    partial = output.with_name(f"{output.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(output)


@dataclass(frozen=True)
class _Compared:
    """The sampled crops in both spaces."""

    versions: tuple[str, str]
    refs: list[CropRef]
    features: tuple[NDArray[np.float32], NDArray[np.float32]]
    lists: tuple[NDArray[np.int32], NDArray[np.int32]]
    change: NDArray[np.float64]
    codes: NDArray[np.int32]
    names: tuple[str, ...]
    after: Bundle
    settings: ReportSettings

    @classmethod
    def of(
        cls, before: Bundle, after: Bundle, crops: str | Path, settings: ReportSettings
    ) -> _Compared:
        report = open_source(crops).scan(check="header")
        report.require_crops()
        refs = _sample(list(report.crops), settings.sample, settings.seed)
        first = embed_refs(before, refs)
        second = embed_refs(after, first.kept)
        refs = second.kept
        kept = np.isin([str(r.path) for r in first.kept], [str(r.path) for r in refs])
        features = first.features[kept], second.features
        k = min(settings.neighbours, max(1, len(refs) - 1))
        lists = (
            neighbour_lists(features[0], k, threads=settings.threads),
            neighbour_lists(features[1], k, threads=settings.threads),
        )
        found = camera_codes(refs, ignore=False)
        unknown = np.zeros(len(refs), np.int32), (_NO_CAMERA,)
        codes, names = unknown if found.codes is None else (found.codes, found.names)
        return cls(
            versions=(before.model_version, after.model_version),
            refs=refs,
            features=features,
            lists=lists,
            change=neighbourhood_change(*lists),
            codes=codes,
            names=names,
            after=after,
            settings=settings,
        )

    def drift(self) -> list[CameraDrift]:
        return camera_drift(*self.lists, self.codes, self.names)

    def map(self) -> bytes:
        settings = self.settings
        rows = np.sort(_rows(len(self.refs), settings.mapped, settings.seed))
        points = [
            map_2d(features[rows], seed=settings.seed, threads=settings.threads)
            for features in self.features
        ]
        return scatter_pair(points[0], points[1], self.codes[rows], self.names)

    def cluster_sheets(self) -> list[dict[str, Any]]:
        found = self._clustered()
        sizes = np.bincount(found.labels[found.labels >= 0], minlength=found.clusters)
        largest = np.argsort(-sizes, kind="stable")[: self.settings.sheets]
        return [self._sheet(int(c), np.flatnonzero(found.labels == c)) for c in largest]

    def changed_sheets(self) -> list[dict[str, Any]]:
        """Each of the most-changed crops beside its neighbours before and after."""
        ranked = np.argsort(-self.change, kind="stable")[: self.settings.sheets]
        return [
            {
                "name": self.refs[row].path.name,
                "camera": self.refs[row].camera or _NO_CAMERA,
                "change": float(self.change[row]),
                "before": self._strip(np.concatenate([[row], self.lists[0][row]])),
                "after": self._strip(np.concatenate([[row], self.lists[1][row]])),
            }
            for row in ranked
        ]

    def _clustered(self) -> ClusterResult:
        return cluster(
            self.features[1], ClusterSettings(k1=20, eps=0.5), threads=self.settings.threads
        )

    def _sheet(self, number: int, members: NDArray[np.int64]) -> dict[str, Any]:
        cameras = len(np.unique(self.codes[members]))
        return {
            "number": number,
            "size": len(members),
            "cameras": cameras,
            "strip": self._strip(members),
        }

    def _strip(self, rows: NDArray[np.integer]) -> str:
        if not self.settings.images:
            return ""
        pixels = [
            prepare(read_crop(self.refs[row].path), self.after.preprocessing)
            for row in rows[: self.settings.each]
        ]
        return _uri(crop_strip(np.stack(pixels)), "jpeg")


def _sample(refs: list[CropRef], size: int, seed: int) -> list[CropRef]:
    return [refs[row] for row in np.sort(_rows(len(refs), size, seed))]


def _rows(count: int, size: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(count)[:size]


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("adapt.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
