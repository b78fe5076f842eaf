"""What the first card of a kind runs before its engine is trusted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resight.bundle.bundle import Bundle
from resight.bundle.golden import GOLDEN_MIN_COSINE, golden_inputs
from resight.bundle.graph_session import GraphSession
from resight.bundle.half_check import HALF_MIN_COSINE
from resight.engines.backend import Backend, load_backend
from resight.engines.device import Device, open_device
from resight.engines.session import EngineSession, why_not
from resight.errors import FailedPrecondition, ResightError
from resight.v1 import bundle_pb2

__all__ = ["EngineVerdict", "check_engines"]

_SEED = 33
_TIMED_RUNS = 20

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class EngineVerdict:
    """What was found of one engine.

    Attributes:
        path: The engine.
        checked: Whether it ran here.
        reason: Why it did not.
        batches: Batch sizes it ran at.
        min_cosine: Lowest cosine similarity to ``encoder.onnx`` on the CPU; NaN if it did not run.
        milliseconds: Of one run at the batch it is tuned for, copies included, the median of 20.
    """

    path: str
    checked: bool
    reason: str = ""
    batches: tuple[int, ...] = ()
    min_cosine: float = float("nan")
    milliseconds: float = float("nan")

    def payload(self) -> dict[str, Any]:
        """As JSON values; what was not measured is left out."""
        measured = ("min_cosine", "milliseconds")
        return {
            key: value
            for key, value in asdict(self).items()
            if key not in measured or not math.isnan(value)
        }

    def text(self) -> str:
        """One line for people."""
        if not self.checked:
            return f"{self.path}: not run: {self.reason}"
        batches = ", ".join(map(str, self.batches))
        return (
            f"{self.path}: as the encoder at batch {batches} (lowest cosine"
            f" {self.min_cosine:.6f}), {self.milliseconds:.2f} ms a run"
        )


def check_engines(
    bundle: Bundle,
    *,
    load: Callable[[str], Backend] = load_backend,
    device: Callable[[], Device] = open_device,
) -> list[EngineVerdict]:
    """Runs every engine of a bundle that this machine can run, against the encoder on the CPU.

    At the smallest, the tuned and the largest batch and at 1, 2 and 7 where the engine takes them,
    on seeded inputs, every place of a batch compared.

    Returns:
        One verdict an engine; engines for another GPU or version are passed over with the reason.

    Raises:
        FailedPrecondition: The bundle has no engine, no engine can run here, or one answers
            differently.
    """
    if not bundle.manifest.engines:
        raise FailedPrecondition(
            "engines: the bundle holds none; build one with `resight bundle engine`",
            field="engines",
        )
    card = device()
    reference = GraphSession(bundle.encoder_path.read_bytes(), bundle.preprocessing)
    verdicts = [
        _check(bundle, engine, reference.embed, card, load) for engine in bundle.manifest.engines
    ]
    if not any(verdict.checked for verdict in verdicts):
        reasons = "; ".join(f"{verdict.path}: {verdict.reason}" for verdict in verdicts)
        raise FailedPrecondition(f"engines: none can run here: {reasons}", field="engines")
    return verdicts


def _check(
    bundle: Bundle,
    engine: bundle_pb2.Engine,
    reference: Embed,
    device: Device,
    load: Callable[[str], Backend],
) -> EngineVerdict:
    try:
        backend = load(engine.backend)
    except ResightError as error:
        return EngineVerdict(engine.path, False, error.message)
    reason = why_not(engine, backend, device)
    if reason:
        return EngineVerdict(engine.path, False, reason)
    wanted = {1, 2, 7, engine.min_batch, engine.opt_batch, engine.max_batch}
    batches = tuple(sorted(b for b in wanted if engine.min_batch <= b <= engine.max_batch))
    with EngineSession(bundle, engine, backend, device) as session:
        cosines = [_cosine(bundle, engine, batch, reference, session) for batch in batches]
        milliseconds = _timed(bundle, engine.opt_batch, session)
    return EngineVerdict(engine.path, True, "", batches, min(cosines), milliseconds)


def _cosine(
    bundle: Bundle,
    engine: bundle_pb2.Engine,
    batch: int,
    reference: Embed,
    session: EngineSession,
) -> float:
    distinct = golden_inputs(_SEED, min(batch, 8), bundle.preprocessing)
    places = np.arange(batch) % len(distinct)
    expected, found = reference(distinct), session.embed(distinct[places])
    cosine = float(np.min(np.sum(expected[places] * found, axis=1)))
    bound = HALF_MIN_COSINE if engine.precision == "fp16" else GOLDEN_MIN_COSINE
    if not cosine >= bound:
        raise FailedPrecondition(
            f"{engine.path}: cosine similarity {cosine:.6f} to the encoder at batch {batch}, below"
            f" {bound}; do not serve with it, and build it again",
            field=engine.path,
            reason="ENGINE_PARITY",
        )
    return min(cosine, 1.0)


def _timed(bundle: Bundle, batch: int, session: EngineSession) -> float:
    images = golden_inputs(_SEED, 1, bundle.preprocessing).repeat(batch, axis=0)
    seconds = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        session.embed(images)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) * 1e3
