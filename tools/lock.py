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
# Installed beside the environment that dev.txt describes, so it may differ from that in nothing.
BESIDE = {"milvus": "dev"}


def main() -> int:
    for name, extras in ENVIRONMENTS.items():
        command = [
            sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml",
            "--universal", "--python-version", "3.11", "--quiet",
            "--no-header", "--no-emit-index-url", "--no-emit-find-links",
            "--output-file", f"requirements/{name}.txt",
        ]  # fmt: skip
        command += [part for extra in extras for part in ("--extra", extra)]
        if name in BESIDE:
            command += ["--constraint", f"requirements/{BESIDE[name]}.txt"]
        command += sys.argv[1:]
        print(f"requirements/{name}.txt", flush=True)
        subprocess.run(command, cwd=ROOT, check=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
