"""The machine and the versions that a figure was measured with."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

__all__ = ["cores", "describe", "peak_rss"]

_PACKAGES = ("numpy", "faiss-cpu", "numba", "onnxruntime", "torch")


def cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def describe() -> str:
    """One line: processor, cores, load, memory, versions."""
    versions = [f"{name} {_version(name)}" for name in _PACKAGES]
    return (
        f"{_processor()}, {cores()} cores (load {os.getloadavg()[0]:.1f}), {_memory()} GB; "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}"
    )


def peak_rss() -> int:
    """Highest resident size of this process so far, in bytes (Linux).

    From VmHWM: getrusage's figure survives exec, so a child would report its parent's.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
