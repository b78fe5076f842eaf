"""Training steps, loading and augmentation included, against a bare loop of the same network.

Both loops run in turns in one process, so that a busy machine slows both; ``ratio`` is of medians,
``ratio_of_best`` of the fastest iterations, which other load disturbs least:

* *bare*: forward and backward of the network on one random tensor of the batch's shape;
* *step*: what a run does, from the crop cache to the updated memory (gather, flip, shift, erase,
  normalise, forward, loss, backward, Adam, memory).

With ``--crops`` one whole epoch follows, and extraction, clustering and training are given as its
shares. Example::

    python -m bench.training --backbone osnet_x0_25 --init WEIGHTS.pth --crops CROPS --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from adapt.backbones.build import build_embedder
from adapt.backbones.embedder import Embedder
from adapt.data.augmentation import Augmentation, Normalisation
from adapt.data.cache import CropCache
from adapt.data.loader import load
from adapt.data.sampler import batches
from adapt.memory.cluster import ClusterMemory
from adapt.methods.cluster_contrast import ClusterContrast
from adapt.report.summary import RunSummary
from adapt.training.batch_norm import group_batch_norms
from adapt.training.checkpoint import Identity
from adapt.training.config import RunConfig
from adapt.training.device import Precision, describe_device, select_device, set_threads
from adapt.training.engine import Engine, Workload
from adapt.training.randomness import epoch_generator, seed_everything
from adapt.training.resolve import resolve
from adapt.training.run import adapt
from adapt.training.views import Views

CLASSES, EACH = 64, 16


def random_cache(folder: Path, config: RunConfig) -> CropCache:
    """A cache of random pixels, on disk as a run's is."""
    shape = (CLASSES * EACH, config.height, config.width, 3)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", "w+", np.uint8, shape)
    random = np.random.default_rng(0)
    for row in range(len(pixels)):
        pixels[row] = random.integers(0, 256, shape[1:], dtype=np.uint8)
    pixels.flush()
    rows = np.arange(len(pixels), dtype=np.int64)
    reading = np.load(folder / "pixels.npy", mmap_mode="r")
    return CropCache(reading, rows, (), (), "random", reused=False)


def steps(
    embedder: Embedder, config: RunConfig, cache: CropCache, device: torch.device, folder: Path
) -> Iterator[float]:
    """Endless training steps as the engine makes them; yields wall seconds of each."""
    normalise = Normalisation(embedder.mean, embedder.std, device=device)
    labels = np.repeat(np.arange(CLASSES), EACH)
    method = ClusterContrast(config, None, device)
    features = functional.normalize(torch.randn(len(labels), embedder.dim), dim=1).to(device)
    method._memory = ClusterMemory(
        features, torch.from_numpy(labels).to(device), CLASSES,
        temperature=config.temperature, momentum=config.momentum, update="mean",
    )  # fmt: skip
    work = Workload(cache, None, normalise, lambda _model: np.empty((0, 0)), 1000, device)
    engine = Engine(
        embedder, method, config, work, checkpoint=folder / "none.pt",
        identity=Identity({}, "", ""), summary=RunSummary("bench", "bench"),
    )  # fmt: skip
    augment, random = Augmentation(), epoch_generator(1, 0)
    targets = torch.from_numpy(labels).to(device)
    indices = batches(labels, None, p=config.p, k=config.k, seed=1, epoch=0)
    loaded = load(cache, indices, device=device, prefetch=config.prefetch)
    embedder.train()
    number = 0
    while True:
        start = time.perf_counter()
        images, chosen = next(loaded)
        inputs = augment(images, normalise, random)
        rows = torch.from_numpy(chosen).to(device)
        float(engine.step(Views(inputs, rows, targets[rows]), number))
        number += 1
        yield time.perf_counter() - start


def bare(embedder: Embedder, config: RunConfig, device: torch.device) -> Iterator[float]:
    """Endless forward and backward passes on a random tensor; yields wall seconds of each."""
    inputs = torch.randn(config.p * config.k, 3, config.height, config.width, device=device)
    if config.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    precision = Precision(config.precision, device)
    embedder.train()
    while True:
        start = time.perf_counter()
        embedder.zero_grad(set_to_none=True)
        with precision.autocast():
            output = embedder(inputs)
        precision.scaler.scale(output.float().square().mean()).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - start


def compare(config: RunConfig, rounds: int, each: int) -> dict[str, Any]:
    """Medians of both loops, run in turns of ``each`` iterations."""
    device = select_device(config.device)
    seed_everything(config.seed)
    size = (config.height, config.width)
    embedder = build_embedder(config.backbone, init=config.init, image_size=size).to(device)
    if config.channels_last:
        embedder = embedder.to(memory_format=torch.channels_last)
    group_batch_norms(embedder, config.bn_group)
    with tempfile.TemporaryDirectory() as name:
        cache = random_cache(Path(name), config)
        ours, theirs = (
            steps(embedder, config, cache, device, Path(name)),
            bare(embedder, config, device),
        )
        for loop in (ours, theirs):
            list(islice(loop, 3))
        step_seconds: list[float] = []
        bare_seconds: list[float] = []
        for _ in range(rounds):
            step_seconds += islice(ours, each)
            bare_seconds += islice(theirs, each)
        ours.close()  # type: ignore[attr-defined]
    step, base = statistics.median(step_seconds), statistics.median(bare_seconds)
    return {
        "device": describe_device(device),
        "backbone": config.backbone,
        "batch": [config.p * config.k, 3, config.height, config.width],
        "bn_group": config.bn_group,
        "precision": Precision(config.precision, device).name,
        "bare_ms": base * 1e3,
        "step_ms": step * 1e3,
        "step_images_per_s": config.p * config.k / step,
        "ratio": base / step,
        "ratio_of_best": min(bare_seconds) / min(step_seconds),
    }


def epoch_shares(crops: Path, config: RunConfig) -> dict[str, Any]:
    """One epoch of a real run: seconds and shares of its phases."""
    single = config.model_copy(update={"epochs": 1, "warmup_iterations": 0})
    with tempfile.TemporaryDirectory() as name:
        outcome = adapt(crops, Path(name) / "run", single)
    record = outcome.summary.epochs[0]
    total = sum(record.seconds.values())
    return {
        "crops": outcome.summary.crops["usable"],
        "iterations": record.iterations,
        "seconds": dict(record.seconds),
        "shares": {phase: seconds / total for phase, seconds in record.seconds.items()},
        "train_images_per_s": record.images_per_second,
        "other_seconds": outcome.summary.seconds,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the comparison and prints it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--crops", type=Path)
    parser.add_argument("--init")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    parser.add_argument("--json", action="store_true", help="accepted; the output is JSON anyway")
    options = parser.parse_args(argv)
    config = resolve(
        assignments=options.assignments,
        options={
            "method": "cluster-contrast",
            "init": options.init,
            "backbone": options.backbone,
        },
    )
    set_threads(config)
    result = compare(config, options.rounds, options.each)
    if options.crops:
        result["epoch"] = epoch_shares(options.crops, config)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
