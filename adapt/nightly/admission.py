"""From an exported bundle to a candidate on the service: gate, attach, verify, register."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from adapt.export.gate_result import attach_gate
from adapt.gate import GateSettings, Verdict, judge
from adapt.nightly.lease import Lease
from adapt.nightly.upload import register
from resight.bundle import open_bundle, pack
from resight.v1.model_service_pb2_grpc import ModelServiceStub

__all__ = ["admit", "question"]


def question(
    bundle: Path, *, live: Path, baseline: Path, crops: Path, settings: GateSettings, note: str
) -> Verdict:
    """The gate's verdict on a bundle by some of the night's crops; ``note`` says by which."""
    verdict = judge(bundle, live, crops, baseline=baseline, settings=settings)
    return replace(verdict, notes=(note, *verdict.notes))


def admit(
    bundle: Path, verdict: Verdict, archive: Path, lease: Lease, stub: ModelServiceStub
) -> str:
    """Registers a bundle that passed; returns its model version.

    The verdict travels in the bundle, too. What is sent has been read back and run on its golden
    inputs; the service does the same again.

    Args:
        bundle: Folder of the run's bundle.
        verdict: Why it may pass.
        archive: Where its ``.tar`` is written.
        lease: Of the run that registers it.
        stub: Of the service.

    Raises:
        BundleCorrupt: The bundle does not compute what it says.
        ResightError: The service refused it, or did not come back.
    """
    attach_gate(bundle, verdict.payload())
    pack(bundle, archive)
    open_bundle(archive)
    return register(stub, lease, archive, verdict).model_version
