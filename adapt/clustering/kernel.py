"""The one way in which this package compiles its inner loops.

Kernels are compiled by numba without its own threading layers: they release the GIL and are run
over blocks of rows by :mod:`adapt.clustering.blocks`. numba's OpenMP layer aborts in forked data
loader workers and its work-queue layer aborts on concurrent callers; plain threads do neither.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

__all__ = ["kernel", "reducing_kernel"]

_PROBE = 1 << 16

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile ``function`` (nopython, GIL released), and keep the machine code where possible.

    The cache lies beside the source, in ``NUMBA_CACHE_DIR`` or in the user's cache folder. Where
    none of them can be written, the kernel is compiled anew in every process.
    """
    return _compile(function, fastmath=False)


def reducing_kernel(function: Function) -> Function:
    """As :func:`kernel`, for a sum that the compiler may reorder to use vector instructions."""
    return _compile(function, fastmath={"reassoc", "nsz", "contract"})


def _compile(function: Function, *, fastmath: bool | set[str]) -> Function:
    try:
        compiled = numba.njit(cache=True, nogil=True, fastmath=fastmath)(function)
        kept = _writable(compiled.stats.cache_path)
    except RuntimeError:  # "cannot cache function: no locator available"
        kept = False
    if not kept:
        compiled = numba.njit(nogil=True, fastmath=fastmath)(function)
    return cast("Function", compiled)


@cache
def _writable(folder: str) -> bool:
    """Whether files can be written; numba itself fails at the first call where they cannot."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE))
    except OSError:
        return False
    return True
