"""Evaluation of a bundle on query and gallery crops with known identities."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt.evaluation.embedding import EmbeddedCrops, embed_refs
from adapt.evaluation.labels import encode_cameras, encode_identities, read_labels
from adapt.evaluation.market import RankingMetrics, evaluate_ranking
from resight.bundle.bundle import Bundle
from resight.crops.crop import CropRef, SkippedCrop
from resight.crops.source import open_source
from resight.errors import InvalidArgument

__all__ = ["Evaluation", "evaluate_bundle"]


@dataclass(frozen=True)
class Evaluation:
    """Metrics, and what they leave out.

    Attributes:
        metrics: mAP and CMC.
        skipped: Query and gallery crops that could not be used.
        own_files: Query files that the gallery holds too.
        ignored_cameras: Whether crops of the query's own camera were ranked.
        seconds: Wall time of ``embed`` and ``rank``.
    """

    metrics: RankingMetrics
    skipped: list[SkippedCrop]
    own_files: int
    ignored_cameras: bool
    seconds: dict[str, float]

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures should know."""
        found = []
        if self.skipped:
            reasons = Counter(str(crop.reason) for crop in self.skipped)
            listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            found.append(f"{len(self.skipped)} crops skipped: {listed}")
        left_out = self.metrics.queries_without_identity + self.metrics.queries_without_match
        if left_out:
            found.append(
                f"{left_out} queries left out: {self.metrics.queries_without_identity} whose "
                f"identity is not in the gallery, {self.metrics.queries_without_match} matched by "
                "their own camera only"
            )
        if self.ignored_cameras:
            found.append("cameras ignored: not the Market protocol, figures are higher")
            if self.own_files:
                found.append(f"{self.own_files} query files are in the gallery and find themselves")
        return found


def evaluate_bundle(
    bundle: Bundle,
    query_spec: str | Path,
    gallery_spec: str | Path,
    *,
    ignore_cameras: bool = False,
    batch: int = 64,
    advance: Callable[[int], object] | None = None,
) -> Evaluation:
    """Embed query and gallery with a bundle and score the ranking.

    Args:
        bundle: encoder and preprocessing.
        query_spec, gallery_spec: folders in Market-1501 style, or manifests with an identity
            column.
        ignore_cameras: rank crops of the query's own camera too.
        batch: crops a run of the encoder.
        advance: called with the number of crops embedded since its last call.

    Raises:
        NotFound, InvalidArgument: a source that cannot be read, has no usable crop, or does not
            say identities or (unless ignored) cameras.
        FailedPrecondition: no query has a match.
    """
    started = time.perf_counter()
    query = _Side.read("query", query_spec)
    gallery = _Side.read("gallery", gallery_spec)
    if not ignore_cameras:
        encode_cameras(query.refs, gallery.refs)  # refuse before the costly part
    query_crops = query.embed(bundle, batch, advance)
    gallery_crops = gallery.embed(bundle, batch, advance)
    embedded = time.perf_counter()
    q_ids, g_ids = encode_identities(query.names(query_crops), gallery.names(gallery_crops))
    q_cams, g_cams = (
        (None, None) if ignore_cameras else encode_cameras(query_crops.kept, gallery_crops.kept)
    )
    metrics = evaluate_ranking(
        query_crops.features, gallery_crops.features, q_ids, g_ids, q_cams, g_cams
    )
    files = {ref.path.resolve() for ref in gallery_crops.kept}
    return Evaluation(
        metrics=metrics,
        skipped=[*query.skipped, *query_crops.skipped, *gallery.skipped, *gallery_crops.skipped],
        own_files=sum(ref.path.resolve() in files for ref in query_crops.kept),
        ignored_cameras=ignore_cameras,
        seconds={"embed": embedded - started, "rank": time.perf_counter() - embedded},
    )


@dataclass(frozen=True)
class _Side:
    """Query or gallery: crops, who they show, and what was skipped."""

    refs: Sequence[CropRef]
    identities: dict[Path, str]
    skipped: Sequence[SkippedCrop]

    @classmethod
    def read(cls, side: str, spec: str | Path) -> _Side:
        report = open_source(spec).scan()
        refs = report.require_crops()
        labels = read_labels(spec)
        identities = {ref.path: who for ref in refs if (who := labels.identity(ref.path))}
        if len(identities) < len(refs):
            nameless = next(ref for ref in refs if ref.path not in identities)
            raise InvalidArgument(
                f"{side}: {len(refs) - len(identities)} of {len(refs)} crops have no identity, the "
                f"first is {nameless.path.name}; name files in Market-1501 style "
                "(0002_c1s1_000451_03.jpg) or give a manifest with an identity column",
                field=side,
            )
        return cls(refs, identities, report.skipped)

    def embed(
        self, bundle: Bundle, batch: int, advance: Callable[[int], object] | None
    ) -> EmbeddedCrops:
        # Junk is never ranked, so it need not be embedded.
        wanted = [ref for ref in self.refs if self.identities[ref.path] != "-1"]
        return embed_refs(bundle, wanted, batch=batch, advance=advance)

    def names(self, crops: EmbeddedCrops) -> list[str]:
        return [self.identities[ref.path] for ref in crops.kept]
