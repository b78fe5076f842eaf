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
from resight.bundle.rank_agreement import (
    GRAPH_BOUNDS,
    Embedded,
    RankFigures,
    rank_agreement,
)
from resight.engines.backend import Backend, load_backend
from resight.engines.device import Device, open_device
from resight.engines.session import EngineSession, why_not
from resight.errors import FailedPrecondition, ResightError
from resight.v1 import bundle_pb2

__all__ = ["EngineVerdict", "check_engines"]

_SEED = 33
_TIMED_RUNS = 20
_BATCH = 32

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
        overlap: Of its ranking of the crops with the encoder's, top 10; NaN without crops.
        correlation: Of the same rankings.
        milliseconds: Of one run at the batch it is tuned for, copies included, the median of 20.
    """

    path: str
    checked: bool
    reason: str = ""
    batches: tuple[int, ...] = ()
    min_cosine: float = float("nan")
    overlap: float = float("nan")
    correlation: float = float("nan")
    milliseconds: float = float("nan")

    def payload(self) -> dict[str, Any]:
        """As JSON values; what was not measured is left out."""
        return {
            key: value
            for key, value in asdict(self).items()
            if not (isinstance(value, float) and math.isnan(value))
        }

    def text(self) -> str:
        """One line for people."""
        if not self.checked:
            return f"{self.path}: not run: {self.reason}"
        batches = ", ".join(map(str, self.batches))
        ranked = (
            ""
            if math.isnan(self.overlap)
            else f", top-10 overlap {self.overlap:.4f}, rank correlation {self.correlation:.4f}"
        )
        return (
            f"{self.path}: as the encoder at batch {batches} (lowest cosine"
            f" {self.min_cosine:.6f}{ranked}), {self.milliseconds:.2f} ms a run"
        )


def check_engines(
    bundle: Bundle,
    *,
    crops: NDArray[np.uint8] | None = None,
    load: Callable[[str], Backend] = load_backend,
    device: Callable[[], Device] = open_device,
) -> list[EngineVerdict]:
    """Runs every engine of a bundle that this machine can run, against the encoder on the CPU.

    At the smallest, the tuned and the largest batch and at 1, 2 and 7 where the engine takes them,
    on seeded inputs, every place of a batch compared.

    Args:
        bundle: A verified bundle.
        crops: (N, H, W, 3) real crops; with them, each engine's ranking must be the encoder's too.
        load: Finds a library.
        device: Finds the GPU.

    Returns:
        One verdict an engine; engines for another GPU or version are passed over with the reason.

    Raises:
        FailedPrecondition: The bundle has no engine, no engine can run here, or one answers
            differently.
        Refused: One ranks the crops otherwise; says by how much.
    """
    if not bundle.manifest.engines:
        raise FailedPrecondition(
            "engines: the bundle holds none; build one with `resight bundle engine`",
            field="engines",
        )
    card = device()
    reference = GraphSession(bundle.encoder_path.read_bytes(), bundle.preprocessing)
    expected = None if crops is None else _in_batches(reference.embed, crops, _BATCH)
    verdicts = [
        _check(bundle, engine, reference.embed, card, load, crops, expected)
        for engine in bundle.manifest.engines
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
    crops: NDArray[np.uint8] | None,
    expected: NDArray[np.float32] | None,
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
        overlap = correlation = float("nan")
        if crops is not None and expected is not None:
            found = _in_batches(session.embed, crops, engine.max_batch, engine.min_batch)
            figures = _ranking(expected, found)
            figures.admit(engine.path, GRAPH_BOUNDS)
            overlap, correlation = figures.overlap, figures.correlation
        milliseconds = _timed(bundle, engine.opt_batch, session)
    return EngineVerdict(
        engine.path, True, "", batches, min(cosines), overlap, correlation, milliseconds
    )


def _in_batches(
    embed: Embed, crops: NDArray[np.uint8], largest: int, smallest: int = 1
) -> NDArray[np.float32]:
    parts = []
    for start in range(0, len(crops), largest):
        part = crops[start : start + largest]
        # An engine may take no batch as small as what is left over.
        filled = np.resize(part, (max(len(part), smallest), *part.shape[1:]))
        parts.append(embed(filled)[: len(part)])
    return np.concatenate(parts)


def _ranking(expected: NDArray[np.float32], found: NDArray[np.float32]) -> RankFigures:
    own = np.arange(len(expected))
    return rank_agreement(
        Embedded(expected, expected),
        Embedded(found, found),
        query_groups=own,
        gallery_groups=own,
    )


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
