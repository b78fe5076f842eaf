"""``resight bundle engine`` and ``resight bundle verify --engines``."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from resight.bundle.attachments import Attachments, attach
from resight.bundle.bundle import Bundle
from resight.bundle.half_check import half_attachment
from resight.bundle.half_precision import HALF_ENCODER
from resight.bundle.layout import ENCODER
from resight.bundle.reader import open_bundle, verify_golden
from resight.console import emit, note
from resight.crops import Preprocessing, open_source, prepare, read_crop
from resight.engines.backend import load_backend
from resight.engines.build import BatchProfile, Precision, build_engine
from resight.engines.device import open_device
from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["engine", "sample_crops"]

_SAMPLED = 512
_FEWEST = 24


class BackendChoice(StrEnum):
    """Libraries that build engines."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt_rtx"


class PrecisionChoice(StrEnum):
    """Types an engine computes in."""

    fp32 = "fp32"
    fp16 = "fp16"


def engine(
    bundle: Annotated[
        Path, typer.Option(metavar="BUNDLE", help="Folder or .tar; the engine is put into it.")
    ],
    compute_capability: Annotated[
        str, typer.Option(help="Of the GPUs that are to run it, such as 8.9.")
    ],
    backend: Annotated[
        BackendChoice, typer.Option(help="Library that builds it and must run it.")
    ] = BackendChoice.tensorrt,
    precision: Annotated[
        PrecisionChoice, typer.Option(help="fp16 builds from encoder.fp16.onnx.")
    ] = PrecisionChoice.fp16,
    smallest: Annotated[int, typer.Option("--min", help="Smallest batch.")] = 1,
    best: Annotated[int, typer.Option("--opt", help="Batch it is tuned for.")] = 8,
    largest: Annotated[int, typer.Option("--max", help="Largest batch.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Build a TensorRT engine; its model version stays, and no card needs to be there for RTX."""
    profile = BatchProfile(smallest, best, largest)
    library = load_backend(backend.value)
    present = _present() if backend is BackendChoice.tensorrt else None
    opened = open_bundle(bundle, golden=False)
    verify_golden(opened)
    attachments = Attachments()
    with _stdout_kept():
        graph = _graph(opened, precision.value, attachments)
        attachments.add(
            build_engine(
                graph,
                backend=library,
                compute_capability=compute_capability,
                precision=precision.value,
                profile=profile,
                present=present,
            )
        )
    attach(bundle, attachments)
    built = attachments.engines[0]
    size = len(attachments.files[built.path])
    note(
        f"no card has run {built.path} yet: on a GPU of compute capability {compute_capability},"
        f" run `resight bundle verify --engines {bundle}` before serving with it"
    )
    emit(
        {
            "bundle": str(bundle),
            "model_version": opened.model_version,
            "engine": built.path,
            "backend": built.backend,
            "backend_version": built.backend_version,
            "compute_capability": compute_capability,
            "precision": precision.value,
            "min_batch": smallest,
            "opt_batch": best,
            "max_batch": largest,
            "size_bytes": size,
            "checked_on_card": False,
            "attached": sorted(attachments.files),
        },
        as_json=as_json,
        text=f"{bundle}: attached {', '.join(sorted(attachments.files))} ({size} bytes, batch"
        f" {smallest} to {largest}, tuned for {best}); model version {opened.model_version}",
    )


def sample_crops(
    source: str, preprocessing: Preprocessing, limit: int = _SAMPLED
) -> NDArray[np.uint8]:
    """Up to ``limit`` crops of a source, spread over it: (N, H, W, 3) uint8.

    Raises:
        InvalidArgument: The source has too few crops to rank.
    """
    crops = open_source(source).scan(check="header").require_crops()
    if len(crops) < _FEWEST:
        raise InvalidArgument(
            f"crops: {source} has {len(crops)}, and {_FEWEST} are needed to compare rankings",
            field="crops",
        )
    rows = np.unique(np.linspace(0, len(crops) - 1, limit).astype(np.int64))
    return np.stack([prepare(read_crop(crops[row].path), preprocessing) for row in rows])


def _graph(bundle: Bundle, precision: Precision, attachments: Attachments) -> bytes:
    encoder = bundle.encoder_path.read_bytes()
    if precision == "fp32":
        return encoder
    if any(entry.path == HALF_ENCODER for entry in bundle.manifest.files):
        return bundle.file(HALF_ENCODER).read_bytes()
    note(f"the bundle holds no {HALF_ENCODER}: making one from {ENCODER}")
    size = bundle.preprocessing
    none = np.empty((0, size.height, size.width, 3), np.uint8)
    attachments.add(half_attachment(encoder, size, none))
    return attachments.files[HALF_ENCODER]


def _present() -> str | None:
    try:
        return open_device().compute_capability
    except FailedPrecondition as error:
        note(error.message)
        return None


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Sends what the library prints to stderr: stdout holds the command's answer alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
