"""The gate's verdict, put into the bundle it was given on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt.export.model_card import describe_gate
from resight.bundle.attachments import Attachments, attach
from resight.bundle.bundle import Bundle
from resight.bundle.layout import MODEL_CARD
from resight.bundle.model_card import with_section
from resight.bundle.reader import open_bundle
from resight.errors import InvalidArgument

__all__ = ["GATE_FILE", "attach_gate"]

GATE_FILE = "gate.json"


def attach_gate(path: Path, verdict: Mapping[str, Any]) -> Bundle:
    """Adds ``gate.json`` and rewrites the model card's section on it; the version stays.

    Args:
        path: A bundle's folder or ``.tar``.
        verdict: JSON values as ``Verdict.payload`` gives them.

    Raises:
        InvalidArgument: It is a verdict on another model, or no verdict.
        BundleCorrupt: The bundle is not what its digests say.
    """
    bundle = open_bundle(path, golden=False)
    judged = verdict.get("candidate")
    if not isinstance(verdict.get("passed"), bool) or judged != bundle.model_version:
        raise InvalidArgument(
            f"verdict: it is on model {judged!r}, and the bundle holds {bundle.model_version}",
            field="verdict",
        )
    data = (json.dumps(verdict, indent=2, allow_nan=False, sort_keys=True) + "\n").encode()
    card = bundle.file(MODEL_CARD).read_text("utf-8")
    changed = with_section(card, "Gate", describe_gate(verdict))
    return attach(path, Attachments(files={GATE_FILE: data, MODEL_CARD: changed.encode()}))
