"""Generate, lint and check the API stubs.

``generate`` writes resight/v1 from proto/resight/v1. ``lint`` runs buf's rules, buf's breaking
check against the main branch's last tag (when there is one), and fails when the stubs are stale.
"""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
STUBS = ROOT / "resight" / "v1"


def generate(output: Path) -> None:
    """Write the stubs and their type stubs below ``output`` (``output/resight/v1``)."""
    include = resources.files("grpc_tools") / "_proto"
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    bin_dir = Path(sys.executable).parent
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc",
            f"--proto_path={PROTO}", f"--proto_path={include}",
            f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
            f"--python_out={output}", f"--grpc_python_out={output}",
            f"--mypy_out=quiet:{output}", f"--mypy_grpc_out=quiet:{output}",
            *files,
        ],
        check=True,
    )  # fmt: skip
    package = output / "resight" / "v1"
    for path in sorted(package.glob("*_pb2_grpc.py*")):
        if "_service_pb2_grpc" not in path.name:
            path.unlink()


def replace_stubs() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        for old in STUBS.glob("*_pb2*"):
            old.unlink()
        for new in (Path(scratch) / "resight" / "v1").iterdir():
            shutil.copy(new, STUBS / new.name)


def lint() -> int:
    buf = Path(sys.executable).parent / "buf"
    failed = subprocess.run([buf, "lint"], cwd=PROTO).returncode
    tag = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    base = f"tag={tag}" if tag else "ref=HEAD"
    head = subprocess.run(["git", "cat-file", "-e", "HEAD:proto"], cwd=ROOT, capture_output=True)
    if head.returncode == 0:
        against = f"{ROOT / '.git'}#{base},subdir=proto"
        failed |= subprocess.run([buf, "breaking", "--against", against], cwd=PROTO).returncode
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / "resight" / "v1"
        names = {path.name for path in fresh.iterdir()} | {p.name for p in STUBS.glob("*_pb2*")}
        _, changed, missing = filecmp.cmpfiles(fresh, STUBS, sorted(names), shallow=False)
    if changed or missing:
        print("stale stubs, run `make proto`:", *changed, *missing, file=sys.stderr)
        failed |= 1
    return failed


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["generate"]:
            replace_stubs()
        case ["lint"]:
            raise SystemExit(lint())
        case _:
            raise SystemExit("usage: proto.py generate | lint")
