"""What a run knows of its encoder, as the model card says it; no identity, no file name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt.backbones.embedder import Embedder, InitReport
from adapt.backbones.warm_start import WARM_START_FILE
from resight.bundle.attachments import Attachments
from resight.bundle.model_card import ModelCard, render_model_card
from resight.crops import CropRef
from resight.crops.preprocessing import Preprocessing
from resight.v1 import bundle_pb2

__all__ = ["adapted_card", "describe_crops", "describe_gate"]

_SHOWN_CAMERAS = 32
_SETTINGS = (
    "preset", "epochs", "iterations", "passes", "p", "k", "lr", "temperature", "momentum", "eps",
    "k1", "k2", "min_samples", "camera_centering", "ignore_cameras", "freeze_bn", "seed",
)  # fmt: skip


def adapted_card(
    embedder: Embedder,
    *,
    preprocessing: Preprocessing,
    method: str,
    run_id: str,
    config: Mapping[str, Any],
    parent_version: str,
    data: str,
    parity: Sequence[bundle_pb2.Parity],
    attachments: Attachments,
    metrics: Mapping[str, str],
) -> str:
    """The card of an adapted encoder.

    Args:
        embedder: What was exported.
        preprocessing: Its input.
        method: That trained it.
        run_id: Of the run.
        config: Resolved settings; the main ones are shown.
        parent_version: Model version it started from, or empty.
        data: What it was trained on; see ``describe_crops``.
        parity: Of ``encoder.onnx`` to the network.
        attachments: Their figures are shown, and what was left out.
        metrics: Further label-free figures by name, each with where it was measured.
    """
    shown = ", ".join(f"{key} {config[key]}" for key in _SETTINGS if config.get(key) is not None)
    described = [
        f"- Method: {method}, without identity labels; run {run_id}",
        f"- Network: {embedder.name}, {embedder.pooling_name} pooling, neck {embedder.neck_name}, "
        f"{embedder.dim}-d",
        f"- Started from: {_origin(embedder.init_report, parent_version)}",
        f"- Resize filter: {preprocessing.resize_filter}",
        f"- Settings: {shown or 'none given'}; all of them in `manifest.json`",
        f"- Trainable again from `{WARM_START_FILE}`",
    ]
    card = ModelCard(
        name=f"{embedder.name}, {method}",
        height=preprocessing.height,
        width=preprocessing.width,
        method="\n".join(described),
        data=data or "Unlabelled crops; whoever ran this did not describe them.",
        metrics={**metrics, **_figures(parity, attachments)},
        limits=(
            "No accuracy is known: the run saw no identity. Measure it with labelled crops of the"
            " same cameras (`resight adapt evaluate`) before relying on it.",
            *attachments.notes,
            *(f"Probabilities: {note}." for note in _calibration_notes(attachments)),
        ),
        licence=_licence(embedder.init_report),
    )
    return render_model_card(card)


def describe_crops(crops: Sequence[CropRef], *, skipped: int = 0) -> str:
    """Counts, cameras and dates of a run's crops, for people."""
    cameras = Counter(crop.camera for crop in crops if crop.camera is not None)
    times = sorted(crop.capture_time for crop in crops if crop.capture_time is not None)
    tracks = len({(crop.camera, crop.track) for crop in crops if crop.track is not None})
    names = [f"{name} ({count})" for name, count in sorted(cameras.items())]
    more = len(names) - _SHOWN_CAMERAS
    listed = ", ".join(names[:_SHOWN_CAMERAS]) + (f" and {more} more" if more > 0 else "")
    unknown = len(crops) - cameras.total()
    lines = [
        f"- {len(crops)} unlabelled crops" + (f"; {skipped} skipped" if skipped else ""),
        f"- Cameras: {listed}" if names else "- Cameras: not known",
        f"- Taken: {times[0]:%Y-%m-%d %H:%M} to {times[-1]:%Y-%m-%d %H:%M} UTC"
        if times
        else "- Taken: not known",
        f"- Tracks: {tracks}" if tracks else "- Tracks: not known",
    ]
    if names and unknown:
        lines.append(f"- Without camera: {unknown}")
    if times and len(times) < len(crops):
        lines.append(f"- Without time: {len(crops) - len(times)}")
    return "\n".join(lines)


def describe_gate(verdict: Mapping[str, Any]) -> str:
    """The gate's verdict, as ``resight adapt gate --json`` gives it, for people."""
    passed = bool(verdict["passed"])
    against = f" against {verdict['live']}" if verdict.get("live") else ""
    score = verdict.get("score")
    head = f"**{'Passed' if passed else 'Refused'}**{against}"
    if score is not None:
        head += f", score {float(score):.3f}"
    reasons = [f"- {reason}" for reason in verdict.get("reasons", ())]
    return "\n".join([f"{head}. The gate judges without labels; see docs/gate.md.", "", *reasons])


def _calibration_notes(attachments: Attachments) -> list[str]:
    return list(attachments.calibration.notes) if attachments.calibration else []


def _figures(parity: Sequence[bundle_pb2.Parity], attachments: Attachments) -> dict[str, str]:
    rows: dict[str, str] = {}
    for entry in [*parity, *attachments.parity]:
        name = (
            f"Cosine of {entry.path} to encoder.onnx"
            if entry.path
            else ("Cosine of encoder.onnx to the network")
        )
        lowest = min(float(rows.get(name, "1").split()[0]), entry.min_cosine)
        rows[name] = f"{lowest:.6f} (the lowest)"
    for agreement in attachments.rank_agreement:
        rows[f"Ranking of {agreement.path}"] = (
            f"top-{agreement.depth} overlap {agreement.overlap:.3f}, rank correlation"
            f" {agreement.correlation:.3f} ({agreement.queries} of the run's crops)"
        )
    fitted = attachments.calibration
    if fitted is not None:
        tracked = fitted.evidence == bundle_pb2.ScoreCalibration.EVIDENCE_TRACKLETS
        rows["Probability of one identity"] = (
            f"calibration error {fitted.expected_calibration_error:.3f}"
            f" ({fitted.held_out_positives} + {fitted.held_out_negatives} pairs of held-out tracks)"
            if tracked and fitted.held_out_positives
            else "fitted, reliability not known"
        )
    return rows


def _origin(report: InitReport, parent_version: str) -> str:
    # The file's name and digest, not its folder: where it lay is nobody's business.
    source = {
        "embedded": f"ImageNet weights of {report.source}",
        "random": "random weights",
        "timm": f"timm's weights of {report.source.removeprefix('timm:')}",
        "state-dict": Path(report.source).name,
        "warm-start": Path(report.source).name,
        "bundle": f"the weights of model {parent_version}",
    }[report.kind]
    return f"{source} (SHA-256 {report.sha256})" if report.sha256 else source


def _licence(report: InitReport) -> str:
    start = {
        "embedded": f"The start weights, {report.source}, come under their package's licence.",
        "random": "There are no start weights.",
        "timm": "The start weights come under the licence that timm's model card names.",
    }.get(report.kind, "The start weights come under the terms of where they were got.")
    return f"{start} The terms under which the crops were collected bind the result too."
