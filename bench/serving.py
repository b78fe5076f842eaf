"""A real `resight serve` process to measure, the images to send it, and what CPU they take."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from resight.crops import open_source

__all__ = ["cpu_seconds", "import_bundle", "own_cpu", "pinned", "sample_images", "serving"]

RESIGHT = Path(sys.executable).with_name("resight")


@contextmanager
def serving(bundle: Path, data: Path, options: Sequence[str] = ()) -> Iterator[tuple[str, int]]:
    """A service for as long as the block lasts: its ``host:port`` for gRPC, and its process id."""
    command = [
        str(RESIGHT), "serve", "--bundle", str(bundle), "--data", str(data),
        "--grpc-port", "0", "--rest-port", "0", *options,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline() if process.stdout else ""
        ready = dict(part.split("=", 1) for part in line.split()[1:])
        yield ready["grpc"], process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[None]:
    """Processes and threads begun in the block run on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def sample_images(crops: Path, count: int) -> list[bytes]:
    """So many images, evenly from a folder or manifest of crops."""
    refs = open_source(crops).scan().crops
    return [ref.path.read_bytes() for ref in refs[:: max(1, len(refs) // count)][:count]]


def import_bundle(onnx: Path, folder: Path) -> Path:
    """A bundle of an encoder with inputs of 256 x 128 and ImageNet's normalisation."""
    output = folder / "bundle"
    command = [
        str(RESIGHT), "bundle", "import", str(onnx), "--output", str(output),
        "--height", "256", "--width", "128",
        "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output


def own_cpu() -> float:
    """Seconds of CPU that this process has taken."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_seconds(pid: int) -> float:
    """Seconds of CPU that a process has taken (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
