"""Sessions of ONNX Runtime on the provider that was asked for, or none.

ONNX Runtime replaces a provider that it cannot use by another, when a session is made and when one
runs, and tells nobody but its log. That is switched off as far as it can be, and what was got is
compared with what was asked for. No card has run the CUDA provider here yet; the first one is held
to the golden outputs of the bundle at each start.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from resight.bundle import Bundle, check_golden

__all__ = ["CPU", "CUDA", "ProviderUnusableError", "Session", "open_session"]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# Vectors of every device lie in one gallery: none may be computed in less than float32.
_CUDA_OPTIONS = {"use_tf32": "0", "arena_extend_strategy": "kSameAsRequested"}

_Providers = list[str | tuple[str, dict[str, str]]]


class ProviderUnusableError(Exception):
    """A provider cannot be used here; says why."""


class Session:
    """The graph of a bundle, on ``provider``.

    Args:
        bundle: Verified; held, because an archive lies unpacked only for as long as it is.
        provider: By ONNX Runtime's name; nodes that it lacks run on the CPU.
        threads: Threads of one call on the CPU.
        spin: Whether waiting threads burn their core.

    Raises:
        ProviderUnusableError: Another provider was got.
    """

    def __init__(self, bundle: Bundle, provider: str, *, threads: int, spin: bool) -> None:
        self.provider = provider
        self.dimension: int = bundle.dimension
        self._bundle = bundle
        self._session = onnxruntime.InferenceSession(
            str(bundle.encoder_path),
            _options(threads, spin=spin),
            providers=_providers(provider),
            enable_fallback=0,
        )
        got = self._session.get_providers()[0]
        if got != provider:
            raise ProviderUnusableError(f"{provider} was asked for and {got} was got")

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B,H,W,3) uint8, RGB, to (B,D) float32 of unit length."""
        vectors: NDArray[np.float32] = self._session.run(["embeddings"], {"images": images})[0]
        return vectors


def open_session(bundle: Bundle, provider: str, *, threads: int, spin: bool) -> Session:
    """A session; one of another provider than the CPU computes the bundle's golden outputs.

    Args: As Session.

    Raises:
        ProviderUnusableError: The provider is another one than the CPU, and cannot be used.
    """
    if provider == CPU:
        return Session(bundle, CPU, threads=threads, spin=spin)
    if provider not in onnxruntime.get_available_providers():
        raise ProviderUnusableError(f"the onnxruntime that is installed has no {provider}")
    if provider == CUDA:
        # Finds CUDA where pip has put it, and prints what it does not find.
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
    try:
        session = Session(bundle, provider, threads=threads, spin=spin)
        check_golden(session, bundle.manifest.golden, bundle.preprocessing)
    except ProviderUnusableError:
        raise
    except Exception as error:  # those of ONNX Runtime share no base class but this
        raise ProviderUnusableError(f"{provider}: {error}") from error
    return session


def _providers(provider: str) -> _Providers:
    if provider == CPU:
        return [CPU]
    return [(CUDA, _CUDA_OPTIONS) if provider == CUDA else provider, CPU]


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
