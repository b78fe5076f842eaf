"""The `Encoder` port over ONNX Runtime.

The bundle is verified (digests and golden outputs) by ``resight.bundle.open_bundle`` before it
comes here. Thread counts are always set from what this process may use; the providers asked for
are compared with those the session got, and a fallback is refused: ONNX Runtime itself would only
log it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from resight.bundle import Bundle
from resight.crops import Preprocessing
from resight.errors import FailedPrecondition
from service.encoder.cpus import usable_cpus
from service.telemetry import PROVIDER_FALLBACK

__all__ = ["OnnxEncoder"]

CPU = "CPUExecutionProvider"


class OnnxEncoder:
    """One session; ``embed`` may be called from several threads on the CPU.

    Args:
        bundle: A verified bundle.
        threads: Threads of one call; 0: all CPUs this process may use but one, which decoding,
            RPC and search need while a batch runs.
        providers: Execution providers in order of preference; every one must be got.
        spin: Whether waiting threads burn their core. It pays only on cores of one's own.

    Raises:
        FailedPrecondition: A provider asked for is not available.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 0,
        providers: Sequence[str] = (CPU,),
        spin: bool = False,
    ) -> None:
        self.model_version: str = bundle.model_version
        self.dimension: int = bundle.dimension
        self.preprocessing: Preprocessing = bundle.preprocessing
        self._session = onnxruntime.InferenceSession(
            str(bundle.encoder_path),
            _options(threads or max(1, usable_cpus() - 1), spin=spin),
            providers=list(providers),
        )
        self.provider: str = _checked(providers, self._session.get_providers())

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B,H,W,3) uint8, RGB, to (B,D) float32 of unit length."""
        outputs = self._session.run(["embeddings"], {"images": images})
        vectors: NDArray[np.float32] = outputs[0]
        return vectors


def _options(threads: int, *, spin: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    # Its own lines go past our log; what is an error is raised, too.
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    # Batches vary in size; planning memory per shape would keep a pattern for each.
    options.enable_mem_pattern = False
    return options


def _checked(asked: Sequence[str], got: Sequence[str]) -> str:
    missing = [name for name in asked if name not in got]
    if missing:
        PROVIDER_FALLBACK.labels(missing[0], got[0]).inc()
        raise FailedPrecondition(
            f"encoder.providers: {', '.join(missing)} is not available here (got "
            f"{', '.join(got)}); install the extra that brings it or ask for {CPU}",
            field="encoder.providers",
            reason="PROVIDER_UNAVAILABLE",
        )
    return str(got[0])
