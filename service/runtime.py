"""One process: bundle, catalog, gallery, pipeline, both listeners; its start and its end.

Start: take both ports (a taken one is known at once), verify the bundle, warm the encoder up, load
the gallery from the catalog, then listen, then ready. Nothing is served before everything works.

End, on SIGTERM or SIGINT: health NOT_SERVING and ``/readyz`` 503 first, then (after
``drain_delay_seconds``, in which load balancers notice) no new calls, those in flight finish within
``drain_seconds``, ingest streams are told which items to send again, the catalog commits what it
has; exit 0. A second signal exits at once. When the encoder dies the same happens without any
grace, and exit is 1: a process that cannot answer must not look alive.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Self

from service.access.opening import open_gate
from service.application.application import Application
from service.clock import SystemClock
from service.encoder.bundle_loader import BundleLoader
from service.encoder.opening import open_encoder, pipeline_policy
from service.gauges import refresh_gauges
from service.loop_lag import watch_loop_lag
from service.pipeline.admission import BULK_SHARE
from service.pipeline.device import DeviceFailureError
from service.pipeline.pipeline import Pipeline
from service.preflight.start import refuse_bad_start
from service.readiness import State, watch_readiness
from service.settings import ServiceSettings
from service.telemetry import AUDIT_WRITABLE, READY
from service.tls.rotation import Rotation
from service.transport.address import joined
from service.transport.grpc.ingest_room import IngestRoom
from service.transport.grpc.server import GrpcServer
from service.transport.rest.app import create_app, create_probes
from service.transport.rest.server import RestServer
from service.transport.use_cases import UseCases

if TYPE_CHECKING:
    from service.tracing.exporting import Exporting

__all__ = ["Endpoints", "Runtime"]

logger = logging.getLogger(__name__)

EXIT_DRAINED = 0
EXIT_FAILED = 1


@dataclass(frozen=True)
class Endpoints:
    """Where the service listens and what it serves."""

    grpc: str
    rest: str
    model_version: str
    crops: int
    probes: str | None = None


class Runtime:
    """``await Runtime.start(settings)``, then ``await serve_until_stopped()``."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._state: State = "starting"
        self._stop = asyncio.Event()
        self._draining = asyncio.Event()
        self._grpc = GrpcServer(settings.grpc, with_reflection=settings.reflection)
        self._rest = RestServer()
        self._probes = RestServer("probes")
        self._tls: Rotation | None = None
        self._tls_task: asyncio.Task[None] | None = None
        self._pipeline: Pipeline
        self._pipeline_task: asyncio.Task[None]
        self._application: Application
        self._dead_encoder: asyncio.Task[None] | None = None
        self._lag_task = asyncio.create_task(watch_loop_lag())
        self._readiness_task: asyncio.Task[None] | None = None
        self._can_record: Callable[[], bool] = lambda: True
        self._exporting = _start_tracing(settings)
        self.endpoints: Endpoints

    @classmethod
    async def start(cls, settings: ServiceSettings) -> Self:
        """A service that is ready.

        Raises:
            ResightError: A setting, the bundle, the catalog or a port cannot be used; the message
                names it and the fix.
        """
        runtime = cls(settings)
        try:
            await runtime._start()
        except BaseException:
            runtime._lag_task.cancel()
            await asyncio.gather(runtime._rest.stop(0), runtime._probes.stop(0))
            raise
        return runtime

    async def _start(self) -> None:
        settings = self._settings
        tls = self._tls = Rotation.open(settings.tls, SystemClock())
        grpc_port = self._grpc.bind(
            settings.grpc.host,
            settings.grpc.port,
            None if tls is None else tls.grpc_credentials(),
        )
        rest_port = self._rest.bind(settings.rest.host, settings.rest.port)
        probes = self._serve_probes()
        await asyncio.to_thread(refuse_bad_start, settings)
        encoder, calibration = await asyncio.to_thread(open_encoder, settings)
        self._pipeline = Pipeline(encoder, pipeline_policy(settings))
        begun = perf_counter()
        await self._pipeline.warm_up()
        logger.info("encoder %s warm in %.2f s", encoder.model_version, perf_counter() - begun)
        self._pipeline_task = asyncio.create_task(self._pipeline.run())
        self._application = await Application.open(
            settings,
            embedder=self._pipeline,
            calibrations={} if calibration is None else {encoder.model_version: calibration},
            load_encoder=BundleLoader(
                pipeline_policy(settings),
                settings=settings.encoder,
                died=self._on_dead_encoder,
            ),
        )
        use_cases = UseCases.of(self._application)
        recorders = []
        if settings.audit.enabled:
            audit = await self._application.open_audit(settings)
            recorders.append(audit.recorder)
            self._can_record = audit.log.writability.look
        gate = await open_gate(settings, keys=self._application.key_ring, recorders=recorders)
        app = create_app(
            use_cases,
            gate=gate,
            state=self._shown_state,
            refresh=self._refresh_gauges,
            draining=self._draining,
            max_image_bytes=settings.limits.max_image_bytes,
            max_bundle_bytes=settings.models.max_bundle_bytes,
            max_body_seconds=settings.rest.max_body_seconds,
            min_upload_bytes_per_second=settings.models.min_upload_bytes_per_second,
        )
        await self._grpc.serve(
            use_cases,
            gate=gate,
            draining=self._draining,
            max_in_flight_per_stream=settings.grpc.max_in_flight_per_stream,
            room=IngestRoom(
                items=max(1, int(settings.batcher.max_queue * BULK_SHARE)),
                size=int(settings.batcher.max_queue_bytes * BULK_SHARE),
            ),
        )
        self._rest.serve(app, None if tls is None else tls.rest_context)
        if tls is not None:
            self._tls_task = asyncio.create_task(tls.watch())
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._on_signal, name)
        # What the start has made stays: collecting garbage must not walk it again, while every call
        # waits, each time a large answer fills the young generations.
        gc.collect()
        gc.freeze()
        await self._set_state("ready")
        self._readiness_task = asyncio.create_task(
            watch_readiness(self._shown_state, self._tell_state)
        )
        self.endpoints = Endpoints(
            grpc=joined(settings.grpc.host, grpc_port),
            rest=joined(settings.rest.host, rest_port),
            model_version=encoder.model_version,
            crops=self._application.crop_count,
            probes=probes,
        )

    def _serve_probes(self) -> str | None:
        """From the first moment on: whoever watches a long start sees that it is alive."""
        section = self._settings.probes
        if section.port is None:
            return None
        port = self._probes.bind(section.host, section.port)
        self._probes.serve(create_probes(state=self._shown_state, refresh=self._refresh_gauges))
        return joined(section.host, port)

    async def serve_until_stopped(self) -> int:
        """Serve until a signal or a fault; returns the exit code."""
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((stopping, self._pipeline_task), return_when=asyncio.FIRST_COMPLETED)
        dead = self._pipeline_task if self._pipeline_task.done() else self._dead_encoder
        failed = dead is not None
        if dead is not None:
            logger.critical("an encoder is dead; the process ends: %s", _reason(dead))
        stopping.cancel()
        if failed:
            await self._shut_down(delay=0.0, grace=0.0)
        else:
            settings = self._settings
            await self._shut_down(delay=settings.drain_delay_seconds, grace=settings.drain_seconds)
        return EXIT_FAILED if failed else EXIT_DRAINED

    async def _shut_down(self, *, delay: float, grace: float) -> None:
        for task in (self._readiness_task, self._tls_task):
            if task is not None:
                task.cancel()
        await self._set_state("draining")
        await asyncio.sleep(delay)
        self._draining.set()
        await asyncio.gather(self._grpc.stop(grace), self._rest.stop(grace))
        self._pipeline.close()
        await asyncio.wait((self._pipeline_task,))
        await self._probes.stop(0)
        await self._application.close()
        self._lag_task.cancel()
        if self._exporting is not None:
            await asyncio.to_thread(self._exporting.stop)
        logger.info("stopped")

    def _on_signal(self, name: signal.Signals) -> None:
        if self._stop.is_set():
            os._exit(128 + name)
        settings = self._settings
        logger.info(
            "%s: answering for %.0f s more, then draining for at most %.0f s",
            name.name,
            settings.drain_delay_seconds,
            settings.drain_seconds,
        )
        self._stop.set()

    def _on_dead_encoder(self, running: asyncio.Task[None]) -> None:
        self._dead_encoder = running
        self._stop.set()

    async def _set_state(self, state: State) -> None:
        self._state = state
        await self._tell_state()

    async def _tell_state(self) -> None:
        ready = self._shown_state() == "ready"
        READY.set(ready)
        AUDIT_WRITABLE.set(self._can_record())
        await self._grpc.health.set(serving=ready)

    def _shown_state(self) -> State:
        if self._state != "ready":
            return self._state
        if not self._application.replication.fence.is_open:
            return "stale"
        return "ready" if self._can_record() else "unrecorded"

    def _refresh_gauges(self) -> None:
        if self._state == "starting":
            return
        refresh_gauges(self._application)
        AUDIT_WRITABLE.set(self._can_record())


def _start_tracing(settings: ServiceSettings) -> Exporting | None:
    if settings.tracing.endpoint is None:
        return None
    # Nobody who traces nothing pays for the libraries.
    from service.tracing.exporting import Exporting

    return Exporting(settings.tracing.endpoint, ratio=settings.tracing.sample_ratio)


def _reason(task: asyncio.Task[None]) -> str:
    error = None if task.cancelled() else task.exception()
    return str(error) if isinstance(error, DeviceFailureError) else repr(error)
