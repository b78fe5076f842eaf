"""The `Encoder` port over ONNX Runtime.

The bundle is verified (digests, and golden outputs on the CPU) by ``resight.bundle.open_bundle``
before it comes here. Thread counts are always set from what this process may use. A provider that
cannot be used, or fails later on what the CPU can compute, ends the matter; or, where that is
allowed, the CPU takes its place for good, which is said in the log and counted.
"""

from __future__ import annotations

import logging
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from resight.bundle import Bundle
from resight.crops import Preprocessing
from resight.errors import FailedPrecondition
from service.encoder.cpus import usable_cpus
from service.encoder.session import CPU, ProviderUnusableError, Session, open_session
from service.telemetry import MODEL_INFO, PROVIDER_FALLBACK

__all__ = ["OnnxEncoder"]

logger = logging.getLogger(__name__)


class OnnxEncoder:
    """One session; ``embed`` may be called from several threads.

    Args:
        bundle: A verified bundle.
        threads: Threads of one call on the CPU; 0: all CPUs this process may use but one, which
            decoding, RPC and search need while a batch runs.
        provider: Execution provider, by ONNX Runtime's name.
        fallback: Whether the CPU may take the place of another provider.
        spin: Whether waiting threads burn their core. It pays only on cores of one's own.

    Raises:
        FailedPrecondition: The provider cannot be used, and nothing may take its place.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 0,
        provider: str = CPU,
        fallback: bool = False,
        spin: bool = False,
    ) -> None:
        self.model_version: str = bundle.model_version
        self.dimension: int = bundle.dimension
        self.preprocessing: Preprocessing = bundle.preprocessing
        self._bundle = bundle
        self._threads = threads or max(1, usable_cpus() - 1)
        self._spin = spin
        self._fallback = fallback
        self._changing = Lock()
        self._spare: Session | None = None
        self._shown = ""
        try:
            self._session = self._opened(provider)
        except ProviderUnusableError as error:
            if not fallback:
                raise _refused(str(error)) from error
            self._session = self._opened(CPU)
            self._count(provider, str(error))

    @property
    def provider(self) -> str:
        """The execution provider that computes, now."""
        return self._session.provider

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B,H,W,3) uint8, RGB, to (B,D) float32 of unit length."""
        session = self._session
        if session.provider == CPU or not self._fallback:
            return session.embed(images)
        try:
            return _finite(session.embed(images))
        except Exception as error:
            return self._embed_on_cpu(images, f"{type(error).__name__}: {error}")

    def show(self) -> None:
        """Say in the metrics what runs, on which provider."""
        self.hide()
        self._shown = self.provider
        MODEL_INFO.labels(self.model_version, "fp32", self._shown).set(1)

    def hide(self) -> None:
        """Say it no more."""
        if self._shown:
            MODEL_INFO.remove(self.model_version, "fp32", self._shown)
            self._shown = ""

    def _embed_on_cpu(self, images: NDArray[np.uint8], failure: str) -> NDArray[np.float32]:
        with self._changing:
            if self._spare is None:
                self._spare = self._opened(CPU)
            # What fails here, too, is the fault of the images.
            vectors = _finite(self._spare.embed(images))
            asked = self.provider
            if asked != CPU:
                self._session = self._spare
                self._count(asked, failure)
                if self._shown:
                    self.show()
        return vectors

    def _opened(self, provider: str) -> Session:
        return open_session(self._bundle, provider, threads=self._threads, spin=self._spin)

    def _count(self, asked: str, why: str) -> None:
        PROVIDER_FALLBACK.labels(asked, CPU).inc()
        logger.error(
            "encoder %s runs on the CPU until it is started again (encoder.fallback): %s",
            self.model_version,
            why,
        )


def _finite(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(vectors).all():
        raise ArithmeticError("a vector is not finite")
    return vectors


def _refused(why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"encoder.provider cannot be used: {why}; run where it can (docs/operations.md, GPU), set "
        "RESIGHT_ENCODER__FALLBACK=cpu to serve on the CPU in its place, or "
        "RESIGHT_ENCODER__PROVIDER=cpu",
        field="encoder.provider",
        reason="PROVIDER_UNAVAILABLE",
    )
