"""Models changed under load on one or two replicas: how soon the replicas agree, what searches and
ingest feel, and that no answer mixes two models.

``python -m bench lifecycle [--postgresql URL] [--crops N] [--seconds S] [--answers N]``; the
database must be empty. Without one: a single service on SQLite.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.lifecycle_load import Load, encoder_archive, items
from bench.serving import RESIGHT, serving
from resight.bundle import open_bundle
from resight.client.connection import Connection, connect
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1.types_pb2 import Camera

__all__ = ["lived", "main"]

OLD, NEW = 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(prog="bench lifecycle", description=__doc__)
    parser.add_argument("--postgresql", default="")
    parser.add_argument("--crops", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--answers", type=int, default=0, help="searches at least, however long")
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        root = Path(folder)
        encoder_archive(root / "old.tar", OLD)
        environment = {
            "RESIGHT_BLOB_URL": f"file://{root}/blobs",
            "RESIGHT_ERASURES_DIR": f"{root}/erasures",
            "RESIGHT_MODELS__POLL_SECONDS": "0.1",
        }
        if told.postgresql:
            environment["RESIGHT_DATABASE_URL"] = told.postgresql
        os.environ.update(environment)
        names = ["a", "b"] if told.postgresql else ["a"]
        if told.postgresql:
            subprocess.run([str(RESIGHT), "db", "upgrade"], check=True, stdout=subprocess.DEVNULL)
        targets = [stack.enter_context(serving(root / "old.tar", root / name))[0] for name in names]
        report = lived(targets, root, crops=told.crops, seconds=told.seconds, answers=told.answers)
    print(json.dumps(report, indent=1))
    wrong = report["judgement"]
    bad = ("mixed", "unknown_versions", "out_of_order", "incomplete", "erased")
    return int(any(wrong[name] for name in bad) or bool(wrong["failed"]) or report["lost"])


def lived(
    targets: Sequence[str], root: Path, *, crops: int, seconds: float, answers: int = 0
) -> dict[str, Any]:
    """A model's life under load on replicas that serve the encoder of ``OLD``; what was measured.

    Args:
        targets: host:port of each replica, all with empty galleries.
        root: A folder with room; ``old.tar`` in it is what they serve.
        crops: In the gallery before.
        seconds: Between two changes.
        answers: The load goes on until so many searches were answered, and a crop was deleted.
    """
    archive = encoder_archive(root / "new.tar", NEW)
    old = open_bundle(root / "old.tar").model_version
    new = open_bundle(archive).model_version
    with ExitStack() as stack:
        sites = [stack.enter_context(connect(target)) for target in targets]
        first, last = sites[0], sites[-1]
        camera = Camera(camera_id="door")
        first.gallery.CreateCamera(gallery.CreateCameraRequest(camera=camera))
        for start in range(0, crops, 1000):
            numbers = range(start, min(start + 1000, crops))
            outcomes = [each.outcome for each in first.gallery.IngestCrops(items(numbers))]
            if set(outcomes) != {gallery.IngestCropsResponse.OUTCOME_ACCEPTED}:
                raise RuntimeError(f"not every crop was accepted: {set(outcomes)}")
        _until(lambda: all(_searchable(site) == crops for site in sites))
        steps: list[tuple[str, str, float, float]] = []
        began = time.monotonic()
        with Load(targets, {old: OLD, new: NEW}, first=crops) as load:
            time.sleep(seconds)
            _register(first, archive)
            staged = time.monotonic()
            first.models.StageModel(models.StageModelRequest(model_version=new))
            wanted = models.GetModelRequest(model_version=new)
            complete = models.Filling.STATE_COMPLETE
            _until(lambda: last.models.GetModel(wanted).filling.state == complete)
            filled = time.monotonic()
            changes: list[tuple[str, str, Callable[[], Any]]] = [
                ("promote", new, lambda: last.models.PromoteModel(_promotion(new))),
                ("rollback", old, lambda: first.models.RollbackModel(_back())),
                ("rollback", new, lambda: last.models.RollbackModel(_back())),
            ]
            for name, version, change in changes:
                asked = time.monotonic()
                change()
                steps.append((name, version, asked, time.monotonic()))
                time.sleep(seconds)
            if answers:
                _until(lambda: len(load.answers) >= answers and bool(load.deleted))
        ended = time.monotonic()
        due = set(load.acknowledged) - set(load.deleting)
        lost = sum(_missing(site, due) for site in sites)
    times = [*[step[2] for step in steps[1:]], ended]
    return {
        "replicas": len(targets),
        "crops": crops,
        "seconds": round(ended - began, 1),
        "filled_in_seconds": round(filled - staged, 2),
        "acknowledged": len(load.acknowledged),
        "deleted": len(load.deleted),
        "lost": lost,
        "changes": [
            {
                "change": name,
                "seconds": round(done - asked, 3),
                "others_agree_after_seconds": [
                    round(load.slowest(replica, version, done, until), 3)
                    for replica in range(len(targets))
                ],
            }
            for (name, version, asked, done), until in zip(steps, times, strict=True)
        ],
        "search_ms": {
            "before": _quantiles(load, began, staged),
            "filling": _quantiles(load, staged, filled),
            "changing": _quantiles(load, filled, ended),
        },
        "judgement": asdict(load.judged()),
        # That the judge sees it: the same answers, had each named the other model.
        "mixed_if_versions_were_exchanged": load.judged({old: NEW, new: OLD}).mixed,
    }


def _promotion(version: str) -> models.PromoteModelRequest:
    return models.PromoteModelRequest(model_version=version, force=True, reason="bench")


def _back() -> models.RollbackModelRequest:
    return models.RollbackModelRequest(reason="bench")


def _register(site: Connection, archive: Path) -> None:
    data = archive.read_bytes()
    upload = models.ModelUpload(sha256=hashlib.sha256(data).digest(), size_bytes=len(data))
    parts = [
        models.RegisterModelRequest(upload=upload),
        models.RegisterModelRequest(chunk=data),
    ]
    site.models.RegisterModel(iter(parts))


def _searchable(site: Connection) -> int:
    return int(site.gallery.GetGalleryStats(gallery.GetGalleryStatsRequest()).searchable)


def _missing(site: Connection, due: set[int]) -> int:
    """How many fewer crops than these a replica finds at last."""
    end = time.monotonic() + 30
    while _searchable(site) < len(due) and time.monotonic() < end:
        time.sleep(0.1)
    return max(0, len(due) - _searchable(site))


def _until(holds: Callable[[], bool], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s")
        time.sleep(0.05)


def _quantiles(load: Load, since: float, until: float) -> dict[str, float]:
    seconds = load.latencies(since, until)
    if not len(seconds):
        return {}
    return {f"p{q}": round(1000 * float(np.quantile(seconds, q / 100)), 1) for q in (50, 99)}
