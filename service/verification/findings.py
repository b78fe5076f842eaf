"""What a verification finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["KINDS", "Finding", "Findings", "Report", "Told"]

EXAMPLES = 10

# Told what is being compared, and how many rows or images more are done.
Told = Callable[[str, int], None]

KINDS: Mapping[str, str] = {
    "LOG_GAP": "positions missing from the log of changes; restore the catalog from a snapshot",
    "VECTOR_MISSING": "crops without a vector of the live model; delete them and ingest them again",
    "VECTOR_DAMAGED": "vectors of a wrong size or length, or not finite; delete the crops and "
    "ingest them again",
    "VECTOR_FOREIGN": "vectors of the model that belong to crops of another gallery; restore the "
    "catalog from a snapshot",
    "INDEX_ROW_MISSING": "crops that no search finds; --repair adds them to the index",
    "INDEX_ROW_EXTRA": "rows of crops that are not stored; --repair removes them from the index",
    "INDEX_ROW_DIFFERS": "rows that are not what the catalog says; --repair replaces them",
    "INDEX_FILES_DAMAGED": "index files that cannot be used; --repair writes them anew, and a "
    "start would read the catalog instead",
    "IMAGE_MISSING": "images that are not in the blob store; restore them, or delete the crops",
    "IMAGE_DAMAGED": "images that are not as they were ingested; restore them, or delete the crops",
    "IMAGE_ORPHANED": "images of no crop; the next start of the service removes them",
    "IMAGE_NOT_REMOVED": "images of deleted crops that are still there; the service tries to "
    "remove them every retention.interval_seconds, and its log says why the blob store refuses",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault: how often, and for some of them what it is about (ids, keys or files)."""

    kind: str
    count: int
    examples: tuple[str, ...]

    @property
    def meaning(self) -> str:
        """For people, with the fix."""
        return KINDS[self.kind]


class Findings:
    """Faults counted by kind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, subjects: Iterable[object]) -> None:
        """A fault of each of these."""
        for subject in subjects:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            examples = self._examples.setdefault(kind, [])
            if len(examples) < EXAMPLES:
                examples.append(str(subject))

    def all(self) -> tuple[Finding, ...]:
        """Every kind that occurred, in the order of ``KINDS``."""
        return tuple(
            Finding(kind, self._counts[kind], tuple(self._examples[kind]))
            for kind in KINDS
            if kind in self._counts
        )


@dataclass(frozen=True, slots=True)
class Report:
    """One gallery compared.

    Args:
        gallery: Its name.
        model_version: Of the live model.
        position: Of the log at which the comparison was made.
        crops: In the catalog.
        rows: In the index of the live model; None when there is none to look at.
        images: In the blob store.
        images_read: Of them read and compared with their digests.
        findings: What is wrong.
        repaired: Rows of the index that were made right.
    """

    gallery: str
    model_version: str
    position: int
    crops: int
    rows: int | None
    images: int
    images_read: int
    findings: tuple[Finding, ...] = field(default=())
    repaired: int = 0
