"""From two bundles and unlabelled crops to a verdict."""

from __future__ import annotations

from pathlib import Path

from adapt.gate.settings import GateSettings
from adapt.gate.verdict import Verdict

__all__ = ["judge"]


def judge(
    candidate: Path,
    live: Path,
    crops: str | Path,
    *,
    baseline: Path | None = None,
    settings: GateSettings | None = None,
) -> Verdict:
    """Compares a candidate with the live encoder on unlabelled crops.

    A refusal is an answer, not an error: see ``Verdict.passed``.

    Args:
        candidate: Bundle of the new encoder, a folder or ``.tar``.
        live: Bundle of the encoder in service.
        crops: Folder or manifest; identities in it are never read.
        baseline: A frozen bundle that no chain of nights may fall behind.
        settings: Default ``GateSettings()``.

    Raises:
        NotFound, InvalidArgument: Crops or a bundle that cannot be read, or too few crops.
        BundleCorrupt: A bundle is not what its digests say.
    """
    raise NotImplementedError("the gate's measurements")
