"""One adaptation, from a source of crops to a bundle."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adapt.backbones.build import build_embedder
from adapt.backbones.embedder import Embedder
from adapt.data.augmentation import Normalisation
from adapt.export.graph import EncoderGraph
from adapt.methods.calr import Calr
from adapt.methods.method import Features, Method
from adapt.methods.registry import create_method
from adapt.report.plot import draw
from adapt.report.summary import RunSummary, json_bytes, write_json
from adapt.training import randomness
from adapt.training.batch_norm import group_batch_norms
from adapt.training.camera_stage import CameraStage, ExtractorOf
from adapt.training.checkpoint import Identity, crop_set_digest, network_digest
from adapt.training.conclusion import estimation_batches, finish_batch_norm, write_bundle
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet, read_crop_set
from adapt.training.device import select_device, set_threads
from adapt.training.directory import RunDirectory
from adapt.training.distributed import current, joined
from adapt.training.engine import Engine, Workload
from adapt.training.extraction import Extractor, PartHead, choose_extractor, onnx_session
from adapt.training.outcome import RunOutcome, find_finished
from adapt.training.record import run_record
from adapt.training.schedule import iterations_per_epoch
from resight.console import note

__all__ = ["RunOutcome", "adapt"]


def adapt(
    source: str | Path,
    output: Path,
    config: RunConfig,
    *,
    resume: bool = False,
    cache: Path | None = None,
    should_stop: Callable[[float], bool] | None = None,
) -> RunOutcome:
    """Adapts an encoder to the unlabelled crops of ``source``; the last epoch's is exported.

    Args:
        source: Folder or manifest of crops; identities in it are never read.
        output: Folder of the run (``RunDirectory``).
        resume: Continue from the last whole epoch.
        cache: Where decoded crops are kept for several runs; by default in ``output``.
        should_stop: Told after each epoch how many seconds it took; the run ends with that epoch
            when it answers true.

    Raises:
        InvalidArgument: Too few crops, or a setting that cannot work with them.
        AlreadyExists: ``output`` holds a run.
        FailedPrecondition: Nothing to contrast, a loss that is not finite, a foreign checkpoint.
    """
    directory = RunDirectory(output)
    device = select_device(config.device)
    with (
        joined(minutes=config.rank_timeout, device=device) as ranks,
        directory.opened(resume=resume, writing=ranks.first),
    ):
        # Nobody goes on before the first rank has the folder.
        ranks.wait()
        run = _Run(config, directory, should_stop)
        return run.execute(source, cache or directory.cache, resume=resume)


class _Run:
    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        should_stop: Callable[[float], bool] | None,
    ) -> None:
        self._should_stop = should_stop
        self._device = select_device(config.device)
        self._ranks = current()
        self._asked = config
        self._config = config.model_copy(
            update={
                # oneDNN's bfloat16 kernels for channels-last memory are not bitwise repeatable.
                "channels_last": config.channels_last
                and not (config.deterministic and self._device.type == "cpu"),
                "bn_group": self._ranks.group_size(config.bn_group, config.p * config.k),
            }
        )
        self._directory = directory
        self._threads = set_threads(config)
        # The trace made for feature extraction serves the export too.
        self._graph: EncoderGraph | None = None
        self._extractor_of: ExtractorOf | None = None
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._summary = RunSummary(config.method, f"{stamp}-{secrets.token_hex(3)}")

    def execute(self, source: str | Path, cache: Path, *, resume: bool) -> RunOutcome:
        if resume and (finished := self._finished(source)) is not None:
            return finished
        randomness.seed_everything(self._config.seed)
        with self._timed("read"):
            crops = read_crop_set(
                source,
                self._config,
                cache=cache,
                skipped_csv=self._directory.skipped,
                threads=self._threads,
            )
        self._summary.crops = crops.counts()
        embedder = self._build()
        method = create_method(self._config, crops.cameras.codes, self._device)
        work = self._workload(embedder, method, crops)
        stage = self._camera_stage(embedder, method, work, crops)
        engine = self._engine(embedder, method, work, crops)
        if resume:
            self._resume(engine)
        self._announce(crops, work, method)
        facts = self._facts(source, crops, work, embedder)
        if self._ranks.first:
            write_json(self._directory.record, run_record(self._config, self._device, **facts))
        try:
            if isinstance(method, Calr) and stage is not None:
                with self._timed("local_clusters"):
                    method.local = stage.run()
            if method.learns:
                engine.run(self._should_stop)
            if self._ranks.first:
                self._finish_batch_norm(engine.encoder, method, crops, work)
        finally:
            self._write_summary()
        version = self._ranks.once(lambda: self._export(engine, crops, embedder))
        return RunOutcome(self._directory, version, self._summary, self._ranks.first)

    def _finished(self, source: str | Path) -> RunOutcome | None:
        first = self._ranks.first
        with self._ranks.leading():
            outcome = find_finished(self._directory, self._config, source, first=first)
        if outcome is not None:
            note("the run was finished already")
        return outcome

    def _build(self) -> Embedder:
        config = self._config
        embedder = build_embedder(
            config.backbone,
            pooling=config.pooling,
            neck=config.neck,
            init=config.init,
            image_size=(config.height, config.width),
            seed=config.seed,
        ).to(self._device)
        if config.channels_last:
            embedder = embedder.to(memory_format=torch.channels_last)
        return embedder

    def _workload(self, embedder: Embedder, method: Method, crops: CropSet) -> Workload:
        normalise = Normalisation(embedder.mean, embedder.std, device=self._device)
        extractor: Extractor = _no_extractor
        if method.learns and self._config.epochs:
            session = onnx_session(embedder, self._config, self._device, maps=method.has_parts)
            if session is not None:
                self._graph = session.graph
            self._extractor_of = partial(
                choose_extractor, session, self._config, normalise=normalise, device=self._device
            )
            extractor = self._extractor_of(crops.cache)
        return Workload(
            cache=crops.cache,
            cameras=crops.cameras.codes if self._config.camera_aware else None,
            normalise=normalise,
            extractor=extractor,
            iterations=iterations_per_epoch(self._config, len(crops.cache)),
            device=self._device,
        )

    def _engine(self, embedder: Embedder, method: Method, work: Workload, crops: CropSet) -> Engine:
        config = self._config
        identity = self._identity(embedder, crops)
        group_batch_norms(embedder, config.bn_group)
        if config.compile:
            embedder.compile()
        return Engine(
            embedder,
            method,
            config,
            work,
            checkpoint=self._directory.checkpoint,
            identity=identity,
            summary=self._summary,
        )

    def _identity(self, embedder: Embedder, crops: CropSet) -> Identity:
        identity = Identity(
            config=self._config.model_dump(mode="json"),
            network=network_digest(embedder),
            crops=crop_set_digest(crops.cache.crops, crops.preprocessing),
        )
        self._ranks.require_same(json.dumps(asdict(identity), sort_keys=True))
        return identity

    def _camera_stage(
        self, embedder: Embedder, method: Method, work: Workload, crops: CropSet
    ) -> CameraStage | None:
        """CALR's first stage, which starts from the encoder as it is now."""
        if not isinstance(method, Calr) or self._extractor_of is None:
            return None
        return CameraStage(
            embedder,
            self._config,
            crops,
            work,
            self._extractor_of,
            folder=self._directory.local_clusters,
            identity=self._identity(embedder, crops),
            summary=self._summary,
        )

    def _resume(self, engine: Engine) -> None:
        if not self._directory.unfinished:
            self._warn("--resume found no checkpoint: the run starts from the beginning")
            return
        if not self._directory.checkpoint.exists():
            note("resuming in the first stage, camera by camera")
            return
        engine.resume()
        note(f"resuming after epoch {engine.completed} of {self._config.epochs}")

    def _announce(self, crops: CropSet, work: Workload, method: Method) -> None:
        config = self._config
        batch, usable = config.p * config.k, len(crops.cache)
        for message in crops.cameras.notes:
            self._warn(message)
        if config.camera_centering and crops.cameras.codes is None:
            self._warn("camera_centering has no effect without cameras")
        if not method.learns:
            return
        if config.deterministic and self._device.type == "cpu":
            note("deterministic on a CPU: channels_last is off")
        if self._asked.bn_group not in (0, config.bn_group):
            self._warn(
                f"bn_group={self._asked.bn_group} does not divide the {config.bn_group} images of"
                f" each of {self._ranks.size} ranks: {config.bn_group} are a group"
            )
        if usable < batch:
            self._warn(f"{usable} crops are fewer than a batch of {batch}: batches repeat crops")
        if config.epochs == 0:
            self._warn("epochs=0: nothing is learnt")
        if config.preset == "published" and work.iterations * batch > 20 * usable:
            self._warn(
                f"an epoch of {work.iterations} x {batch} images passes over the {usable} crops"
                f" {work.iterations * batch / usable:.0f} times; lower iterations or p and k"
            )

    def _facts(
        self, source: str | Path, crops: CropSet, work: Workload, embedder: Embedder
    ) -> dict[str, Any]:
        report = embedder.init_report
        return {
            "run_id": self._summary.run_id,
            "crops": {"source": str(source), "cache": crops.cache.key, **crops.counts()},
            "iterations": work.iterations,
            "threads": self._threads,
            "ranks": self._ranks.size,
            "init": asdict(report),
        }

    def _finish_batch_norm(
        self, encoder: nn.Module, method: Method, crops: CropSet, work: Workload
    ) -> None:
        config = self._config
        batches = estimation_batches(config, len(crops.cache), learns=method.learns)
        if not batches:
            return
        with self._timed("batch_norm"):
            used = finish_batch_norm(
                encoder, config, crops, work.normalise, batches=batches, device=self._device
            )
        if not used:
            self._warn(
                f"{config.backbone} has no batch norm, or too few crops: nothing re-estimated"
            )

    def _export(self, engine: Engine, crops: CropSet, embedder: Embedder) -> str:
        """Writes the bundle; returns its model version."""
        with self._timed("export"):
            version = write_bundle(
                engine.encoder,
                self._config,
                crops,
                output=self._directory.bundle,
                run_id=self._summary.run_id,
                parent_version=embedder.init_report.parent_version,
                graph=self._graph,
                files={
                    "summary.json": json_bytes({**self._summary.payload(), "complete": True}),
                    "summary.png": self._directory.plot.read_bytes(),
                },
            )
        self._summary.complete = True
        self._write_summary()
        return version

    def _write_summary(self) -> None:
        if not self._ranks.first:
            return
        write_json(self._directory.summary, self._summary.payload())
        self._directory.plot.write_bytes(draw(self._summary))

    def _warn(self, message: str) -> None:
        if self._summary.warn(message):
            note(f"warning: {message}")

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._summary.seconds[phase] = time.perf_counter() - start


def _no_extractor(model: nn.Module, parts: PartHead | None = None) -> Features:  # noqa: ARG001
    raise ValueError(f"features of {type(model).__name__} are not wanted by this method")
