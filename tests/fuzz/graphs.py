"""Opens bundles with mutated graphs: ``python -m tests.fuzz.graphs BUNDLE SEED N``."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from google.protobuf import json_format

from resight.bundle import open_bundle
from resight.bundle.bundle import preprocessing_from_proto
from resight.bundle.layout import (
    ENCODER,
    MANIFEST,
    MANIFEST_DIGEST,
    manifest_digest,
    model_version,
)
from resight.errors import ResightError
from resight.v1 import bundle_pb2
from tests.fuzz.mutation import flipped

MOST_MEMORY = 6 * 2**30


def rewrite(folder: Path, graph: bytes) -> None:
    """Another graph, with digests that fit."""
    (folder / ENCODER).write_bytes(graph)
    manifest = json_format.Parse((folder / MANIFEST).read_bytes(), bundle_pb2.BundleManifest())
    for entry in manifest.files:
        if entry.path == ENCODER:
            entry.size_bytes = len(graph)
            entry.sha256 = hashlib.sha256(graph).hexdigest()
    manifest.model_version = model_version(graph, preprocessing_from_proto(manifest.preprocessing))
    document = json.loads((folder / MANIFEST).read_bytes())
    document |= json.loads(json_format.MessageToJson(manifest))
    data = json.dumps(document).encode()
    (folder / MANIFEST).write_bytes(data)
    (folder / MANIFEST_DIGEST).write_bytes(manifest_digest(data))


def main(bundle: Path, seed: int, number: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    draw = random.Random(seed)
    unknown = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "bundle")
        shutil.copytree(bundle, folder)
        good = (bundle / ENCODER).read_bytes()
        for _ in range(number):
            graph = flipped(good, draw)
            rewrite(folder, graph)
            try:
                open_bundle(folder)
            except ResightError:
                pass
            except BaseException as error:
                unknown.append(f"{type(error).__name__}: {error}"[:300])
    print(json.dumps({"tried": number, "unknown": unknown[:20]}))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
