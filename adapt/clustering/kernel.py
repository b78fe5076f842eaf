"""The one way in which this package compiles its inner loops.

Kernels are compiled by numba without its own threading layers: they release the GIL and are run
over blocks of rows by :mod:`adapt.clustering.blocks`. numba's OpenMP layer aborts in forked data
loader workers and its work-queue layer aborts on concurrent callers; plain threads do neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["kernel", "reducing_kernel"]

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(function: Function) -> Function:
    """Compile ``function`` (nopython, GIL released, machine code cached where a cache is writable).

    numba refuses to decorate when neither the source folder, ``NUMBA_CACHE_DIR`` nor the user's
    cache folder can be written; the kernel is then compiled anew in every process.
    """
    return _compile(function, fastmath=False)


def reducing_kernel(function: Function) -> Function:
    """As :func:`kernel`, for a sum that the compiler may reorder to use vector instructions."""
    return _compile(function, fastmath={"reassoc", "nsz", "contract"})


def _compile(function: Function, *, fastmath: bool | set[str]) -> Function:
    try:
        compiled = numba.njit(cache=True, nogil=True, fastmath=fastmath)(function)
    except RuntimeError:  # "cannot cache function: no locator available"
        compiled = numba.njit(nogil=True, fastmath=fastmath)(function)
    return cast("Function", compiled)
