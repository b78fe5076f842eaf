"""`resight serve`: gRPC and REST in one process."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["app", "given"]

logger = logging.getLogger(__name__)
app = typer.Typer()

# Waiting OpenMP threads would otherwise burn the cores that decoding and RPC need (faiss #2731);
# read once, when the library is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@app.command()
def serve(
    bundle: Annotated[
        Path | None, typer.Option(help="Encoder bundle: a folder or .tar. [RESIGHT_BUNDLE]")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Catalog and crop images. [RESIGHT_DATA_DIR]")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address of both listeners; 127.0.0.1 unless set.")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="0 takes a free one. [RESIGHT_GRPC__PORT]")
    ] = None,
    rest_port: Annotated[
        int | None, typer.Option(help="0 takes a free one. [RESIGHT_REST__PORT]")
    ] = None,
    probes_port: Annotated[
        int | None,
        typer.Option(
            help="A listener for /healthz, /readyz and /metrics alone, without TLS and keys; 0 "
            "takes a free one. [RESIGHT_PROBES__PORT]"
        ),
    ] = None,
    drain_delay: Annotated[
        float | None,
        typer.Option(
            help="Seconds to go on serving after health says no. [RESIGHT_DRAIN_DELAY_SECONDS]"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Of the encoder; 0: all CPUs but one. [RESIGHT_ENCODER__THREADS]"),
    ] = None,
) -> None:
    """Serve gRPC and REST until SIGTERM; prints one line when ready."""
    from service import log_lines
    from service.environment import unread_names
    from service.private_files import exposure
    from service.settings import ServiceSettings, load_settings

    log_lines.install()
    # Names of functions and lines alone: where it hangs is seen without ending it, and where native
    # code crashed at all.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    settings = load_settings(
        given(
            bundle=bundle,
            data_dir=data,
            grpc={"host": host, "port": grpc_port},
            rest={"host": host, "port": rest_port},
            probes={"port": probes_port},
            encoder={"threads": threads},
            drain_delay_seconds=drain_delay,
        )
    )
    log_lines.install(settings.logs)
    for name in unread_names(ServiceSettings):
        logger.warning("%s is no setting, and not read: resight config show lists them", name)
    if found := exposure(settings.data_dir):
        logger.warning("%s", found)
    raise typer.Exit(_run(settings))


def _run(settings: Any) -> int:
    from service.core_dumps import forbid_core_dumps
    from service.runtime import Runtime

    if not settings.privacy.store_images:
        forbid_core_dumps()

    async def main() -> int:
        runtime = await Runtime.start(settings)
        at = runtime.endpoints
        line = f"ready grpc={at.grpc} rest={at.rest} model={at.model_version} crops={at.crops}"
        typer.echo(line if at.probes is None else f"{line} probes={at.probes}")
        return await runtime.serve_until_stopped()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())


def _loop_factory() -> Any:
    try:
        import uvloop
    except ModuleNotFoundError:  # not made for every platform; the standard loop serves as well
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def given(**tree: Any) -> dict[str, Any]:
    """The options that were given, as a tree of settings."""
    pruned = {
        key: given(**value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }
    return {key: value for key, value in pruned.items() if value != {}}
