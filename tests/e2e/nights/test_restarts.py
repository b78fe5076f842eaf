"""A night whose service dies and comes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import adapt.nightly.pull
from resight.client import model_upload
from resight.client.connection import connect
from tests.e2e.nights.stand_in import Night, Training, candidates, ingest
from tests.ports import free_port


@contextmanager
def restartable(start_service: Any, data: Path, port: int) -> Iterator[Callable[[], None]]:
    """A service on one port that can be killed and started again."""
    running: list[Any] = []

    def start() -> None:
        context = start_service(data, "--grpc-port", str(port))
        running.append((context, context.__enter__()))

    def stop(how: int) -> None:
        context, service = running.pop()
        service.stop(how)
        context.__exit__(None, None, None)

    def restart() -> None:
        stop(signal.SIGKILL)
        start()

    start()
    try:
        yield restart
    finally:
        stop(signal.SIGTERM)


@pytest.mark.parametrize("when", ["pull", "train", "register"])
def test_a_service_that_dies_and_comes_back_costs_nothing(
    start_service: Any,
    night: Night,
    make_bundle: Callable[..., Path],
    make_jpeg: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    # Long enough that the stream is not yet in this process's buffers when it is cut.
    images = [make_jpeg(number) + bytes(300_000) for number in range(24)]
    port = free_port()
    data = tmp_path / "data"
    with restartable(start_service, data, port) as restart:
        with connect(f"127.0.0.1:{port}") as connection:
            ids = ingest(connection, "default", images)
        training = Training(make_bundle)
        restarted = threading.Event()

        def once() -> None:
            if not restarted.is_set():
                restarted.set()
                restart()

        if when == "train":
            training.during = once
        elif when == "register":
            parts = model_upload.parts

            def cut(*told: Any) -> Iterator[Any]:
                for number, part in enumerate(parts(*told)):
                    if number:
                        once()
                    yield part

            monkeypatch.setattr("adapt.nightly.upload.parts", cut)
        else:
            keep = adapt.nightly.pull.Pull._keep

            def kept(pull: Any, *told: Any, **named: Any) -> None:
                keep(pull, *told, **named)
                if len(pull.crops) == 3:
                    once()

            monkeypatch.setattr(adapt.nightly.pull.Pull, "_keep", kept)
        outcome = night.run(training, target=f"127.0.0.1:{port}", gallery="default")
        assert restarted.is_set()
        assert outcome.result == "succeeded", outcome.message
        assert sorted(crop.path.stem for crop in training.crops) == sorted(ids)
        if when == "pull":
            assert outcome.stream_retries >= 1
        with connect(f"127.0.0.1:{port}") as connection:
            assert len(candidates(connection, "default")) == 1
