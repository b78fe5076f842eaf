"""Encoders of archives, each with a pipeline of its own, loaded while the service runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from resight.bundle import open_bundle
from resight.bundle.calibration import Calibration, load_calibration
from service.application.serving import LoadedEncoder
from service.encoder.onnx import OnnxEncoder
from service.encoder.opening import encoder_of
from service.pipeline.pipeline import Pipeline, PipelinePolicy
from service.settings import EncoderSettings

__all__ = ["BundleLoader"]

logger = logging.getLogger(__name__)


class BundleLoader:
    """Loads encoders; belongs to one event loop.

    Args:
        policy: Of every pipeline.
        settings: Of every encoder.
        died: Called when the encoder of a pipeline is dead: it cannot answer any more.
    """

    def __init__(
        self,
        policy: PipelinePolicy,
        *,
        settings: EncoderSettings,
        died: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self._policy = policy
        self._settings = settings
        self._died = died

    async def __call__(self, archive: Path) -> LoadedEncoder:
        """The encoder of an archive, verified and warm.

        Raises:
            BundleCorrupt, FailedPrecondition: it does not verify, or cannot run here.
        """
        began = perf_counter()
        encoder, calibration = await asyncio.to_thread(self._opened, archive)
        pipeline = Pipeline(encoder, self._policy)
        await pipeline.warm_up()
        running = asyncio.create_task(pipeline.run())
        running.add_done_callback(self._ended)
        encoder.show()
        logger.info("encoder %s warm in %.2f s", encoder.model_version, perf_counter() - began)

        async def close() -> None:
            pipeline.close()
            await asyncio.wait([running])
            encoder.hide()

        return LoadedEncoder(pipeline, calibration, close)

    def _opened(self, archive: Path) -> tuple[OnnxEncoder, Calibration | None]:
        bundle = open_bundle(archive)
        return encoder_of(bundle, self._settings), load_calibration(bundle)

    def _ended(self, running: asyncio.Task[None]) -> None:
        if not running.cancelled() and running.exception() is not None:
            self._died(running)
