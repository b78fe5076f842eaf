"""One adaptation, from a source of crops to a bundle."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from adapt.methods.calr import Calr
from adapt.report.plot import draw
from adapt.report.summary import RunSummary, json_bytes, write_json
from adapt.training import randomness
from adapt.training.assembly import Assembly
from adapt.training.cautions import cautions
from adapt.training.conclusion import estimation_batches, finish_batch_norm, write_bundle
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet, read_crop_set
from adapt.training.device import select_device, set_threads
from adapt.training.directory import RunDirectory
from adapt.training.distributed import current, joined
from adapt.training.engine import Engine
from adapt.training.outcome import RunOutcome, find_finished
from adapt.training.record import run_record
from adapt.training.source_set import read_source_set
from resight.console import note

__all__ = ["RunOutcome", "adapt"]


def adapt(
    source: str | Path,
    output: Path,
    config: RunConfig,
    *,
    resume: bool = False,
    cache: Path | None = None,
    labelled: Path | None = None,
    should_stop: Callable[[float], bool] | None = None,
) -> RunOutcome:
    """Adapts an encoder to the unlabelled crops of ``source``; the last epoch's is exported.

    Args:
        source: Folder or manifest of crops; identities in it are never read.
        output: Folder of the run (``RunDirectory``).
        resume: Continue from the last whole epoch.
        cache: Where decoded crops are kept for several runs; by default in ``output``.
        labelled: Further crops, whose identities are read and learnt from (``SourceSet``).
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
        return run.execute(source, cache or directory.cache, labelled, resume=resume)


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
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._summary = RunSummary(config.method, f"{stamp}-{secrets.token_hex(3)}")

    def execute(
        self, source: str | Path, cache: Path, labelled: Path | None, *, resume: bool
    ) -> RunOutcome:
        if resume and (finished := self._finished(source, labelled)) is not None:
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
        parts = Assembly(self._config, crops, self._device)
        if labelled is not None:
            self._add_source(parts, labelled, crops, cache)
        stage = parts.camera_stage(self._directory, self._summary)
        engine = parts.engine(self._directory, self._summary)
        method = parts.method
        if resume:
            self._resume(engine)
        self._announce(parts, crops)
        if self._ranks.first:
            facts = self._facts(source, labelled, crops, parts)
            write_json(self._directory.record, run_record(self._config, self._device, **facts))
        try:
            if isinstance(method, Calr) and stage is not None:
                with self._timed("local_clusters"):
                    method.local = stage.run(self._should_stop)
            if method.learns:
                engine.run(self._should_stop)
            if self._ranks.first:
                self._finish_batch_norm(engine.encoder, parts, crops)
        finally:
            self._write_summary()
        version = self._ranks.once(lambda: self._export(engine, parts, crops))
        return RunOutcome(self._directory, version, self._summary, self._ranks.first)

    def _finished(self, source: str | Path, labelled: Path | None) -> RunOutcome | None:
        sources = {"source": str(source), "labelled": _text(labelled)}
        with self._ranks.leading():
            outcome = find_finished(self._directory, self._config, sources, first=self._ranks.first)
        if outcome is not None:
            note("the run was finished already")
        return outcome

    def _add_source(self, parts: Assembly, labelled: Path, crops: CropSet, cache: Path) -> None:
        parts.require_source_taken()
        with self._timed("read_source"):
            source = read_source_set(
                labelled, self._config, crops, cache=cache, threads=self._threads
            )
        parts.add_source(source)
        self._summary.crops["source_set"] = source.counts()

    def _resume(self, engine: Engine) -> None:
        if not self._directory.unfinished:
            self._warn("--resume found no checkpoint: the run starts from the beginning")
            return
        if not self._directory.checkpoint.exists():
            note("resuming in the first stage, camera by camera")
            return
        engine.resume()
        note(f"resuming after epoch {engine.completed} of {self._config.epochs}")

    def _announce(self, parts: Assembly, crops: CropSet) -> None:
        learns, work = parts.method.learns, parts.work
        if self._config.deterministic and self._device.type == "cpu" and learns:
            note("deterministic on a CPU: channels_last is off")
        for message in cautions(
            self._asked, self._config, crops, work.source, iterations=work.iterations, learns=learns
        ):
            self._warn(message)

    def _facts(
        self, source: str | Path, labelled: Path | None, crops: CropSet, parts: Assembly
    ) -> dict[str, Any]:
        named = {"source": str(source), "labelled": _text(labelled), "cache": crops.cache.key}
        return {
            "run_id": self._summary.run_id,
            "crops": {**self._summary.crops, **named},
            "iterations": parts.work.iterations,
            "threads": self._threads,
            "ranks": self._ranks.size,
            "init": asdict(parts.embedder.init_report),
        }

    def _finish_batch_norm(self, encoder: nn.Module, parts: Assembly, crops: CropSet) -> None:
        config = self._config
        batches = estimation_batches(config, len(crops.cache), learns=parts.method.learns)
        if not batches:
            return
        with self._timed("batch_norm"):
            used = finish_batch_norm(
                encoder, config, crops, parts.work.normalise, batches=batches, device=self._device
            )
        if not used:
            self._warn(
                f"{config.backbone} has no batch norm, or too few crops: nothing re-estimated"
            )

    def _export(self, engine: Engine, parts: Assembly, crops: CropSet) -> str:
        """Writes the bundle; returns its model version."""
        with self._timed("export"):
            version = write_bundle(
                engine.encoder,
                self._config,
                crops,
                output=self._directory.bundle,
                run_id=self._summary.run_id,
                parent_version=parts.embedder.init_report.parent_version,
                graph=parts.graph,
                source=parts.work.source,
                labels=engine.labels,
                files=lambda: {
                    "summary.json": json_bytes({**self._summary.payload(), "complete": True}),
                    "summary.png": self._directory.plot.read_bytes(),
                },
                warn=self._warn,
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


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
