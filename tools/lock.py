"""Resolve one constraint file per environment, so that two installs a month apart are the same.

The files are universal (every platform and Python from 3.11) and name no index. ``tensorrt`` is
left out: its libraries come from the vendor's own index.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = {
    "dev": ["dev"],
    "adapt": ["adapt"],
    "service-cpu": ["service-cpu"],
    "service-gpu": ["service-gpu"],
    "milvus": ["service-cpu", "milvus"],
}
# What the images of deploy/container hold, with hashes: the environments above, in the same
# versions, and what reaches an object store.
IMAGES = {
    "service-cpu": ["service-cpu", "s3"],
    "service-gpu": ["service-gpu", "s3"],
    "adapt": ["adapt"],
}
LOCKS = Path("deploy/container/locks")
# What makes the wheel of resight itself in them: `build-system.requires` of pyproject.toml.
BUILD = "setuptools>=77"
# Installed beside the environment that dev.txt describes, so it may differ from that in nothing.
BESIDE = {"milvus": "dev"}


def main() -> int:
    for name, extras in ENVIRONMENTS.items():
        beside = [f"--constraint=requirements/{BESIDE[name]}.txt"] if name in BESIDE else []
        _lock(Path(f"requirements/{name}.txt"), extras, *beside, *sys.argv[1:])
    for name, extras in IMAGES.items():
        constraint = f"--constraint=requirements/{name}.txt"
        _lock(LOCKS / f"{name}.txt", extras, constraint, "--generate-hashes", "--no-annotate")
    _lock(LOCKS / "build.txt", None, "--generate-hashes", "--no-annotate")
    # The object store's driver is tested in the versions that the images hold.
    images = f"--constraint={LOCKS / 'service-cpu.txt'}"
    _lock(Path("requirements/s3.txt"), ["s3", "s3-tests"], images, *sys.argv[1:])
    return 0


def _lock(output: Path, extras: list[str] | None, *options: str) -> None:
    """Of resight with some extras; None: of what builds it."""
    print(output, flush=True)
    source = "-" if extras is None else "pyproject.toml"
    command = [
        sys.executable, "-m", "uv", "pip", "compile", source,
        "--universal", "--python-version", "3.11", "--quiet",
        "--no-header", "--no-emit-index-url", "--no-emit-find-links",
        f"--output-file={output}", *[f"--extra={extra}" for extra in extras or ()], *options,
    ]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True, text=True, input=BUILD)


if __name__ == "__main__":
    raise SystemExit(main())
