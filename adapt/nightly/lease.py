"""A run on the service: its lease, kept alive by a thread, and its record."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from resight.client.faults import translated
from resight.console import note
from resight.errors import DeadlineExceeded, FailedPrecondition, ResightError, Unavailable
from resight.v1 import adaptation_service_pb2 as messages
from resight.v1.adaptation_service_pb2_grpc import AdaptationServiceStub

__all__ = ["Lease", "patiently"]

T = TypeVar("T")
State = messages.AdaptationRun.State

_CALL_SECONDS = 30.0
_IDS_A_REPORT = 1000
_FIRST_DELAY = 0.5
_MAX_DELAY = 10.0
_RETRY_SECONDS = 5.0


def patiently(
    call: Callable[[], T], *, seconds: float, sleep: Callable[[float], object] = time.sleep
) -> T:
    """What a call that may be repeated answers, once the service is there to answer it.

    Raises:
        Unavailable, DeadlineExceeded: It did not come back within ``seconds``.
        ResightError: What the call was refused with.
    """
    deadline, delay = time.monotonic() + seconds, _FIRST_DELAY
    while True:
        try:
            with translated():
                return call()
        except (Unavailable, DeadlineExceeded):
            if time.monotonic() + delay > deadline:
                raise
        sleep(delay)
        delay = min(2 * delay, _MAX_DELAY)


@dataclass(frozen=True)
class Available:
    """Crops of one camera in the run's window and before it."""

    new: int
    older: int


class Lease:
    """A running adaptation run; ``with Lease.taken(...) as lease``."""

    def __init__(
        self,
        stub: AdaptationServiceStub,
        gallery: str,
        started: messages.StartAdaptationRunResponse,
        *,
        patience: float,
    ) -> None:
        self._stub = stub
        self._gallery = gallery
        self._token = started.lease_token
        self._interval = started.heartbeat_interval.ToMilliseconds() / 1000
        self._patience = patience
        self._progress = messages.AdaptationProgress()
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._fault: ResightError | None = None
        self.run_id = started.run.run_id
        self.cameras = {
            camera.camera_id: Available(camera.new_crops, camera.older_crops)
            for camera in started.cameras
        }
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @classmethod
    @contextmanager
    def taken(cls, stub: AdaptationServiceStub, gallery: str, *, seconds: float) -> Iterator[Lease]:
        """Takes the gallery's lease and keeps it until the end of the block.

        The block must call ``finish``; a block that ends without (because the process is about to
        die) leaves the lease to expire.

        Raises:
            FailedPrecondition: Another run holds it (reason ``LEASE_HELD``).
            ResightError: The service refused to start a run.
        """
        length = Duration()
        length.FromMicroseconds(int(seconds * 1e6))
        request = messages.StartAdaptationRunRequest(
            gallery=gallery,
            holder=f"{socket.gethostname()} (process {os.getpid()})",
            lease_duration=length,
        )
        # Not repeated: a second start would be refused by the first one's own lease.
        with translated():
            started = stub.StartAdaptationRun(request, timeout=_CALL_SECONDS)
        lease = cls(stub, gallery, started, patience=seconds)
        lease._thread.start()
        try:
            yield lease
        finally:
            lease._stop()
            lease._thread.join()

    @property
    def key(self) -> dict[str, Any]:
        """What every call of the run carries."""
        return {"gallery": self._gallery, "run_id": self.run_id, "lease_token": self._token}

    @property
    def lost(self) -> bool:
        """Whether the service has said that nothing this run does counts any more."""
        return self._fault is not None

    @property
    def patience(self) -> float:
        """Seconds to wait for a service that is away: as long as the lease holds without it."""
        return self._patience

    def require(self) -> None:
        """Stop here when the lease is lost.

        Raises:
            FailedPrecondition: It is.
        """
        if self._fault is not None:
            raise self._fault

    def at(self, stage: str, fraction: float = 0.0, message: str = "") -> None:
        """What heartbeats say of the progress; another stage is said at once."""
        self.require()
        before = self._progress.stage
        self._progress = messages.AdaptationProgress(
            stage=stage, fraction=min(1.0, max(0.0, fraction)), message=message
        )
        if stage != before:
            self._wake.set()

    def report(
        self,
        figures: Mapping[str, Any] | None = None,
        *,
        new_crop_ids: Sequence[str] = (),
        replay_crop_ids: Sequence[str] = (),
    ) -> None:
        """Add to the run's record.

        Raises:
            ResightError: The service refused it, or did not come back.
        """
        message = messages.ReportAdaptationRunRequest
        requests = [message(**self.key, new_crop_ids=ids) for ids in _batches(new_crop_ids)]
        requests += [message(**self.key, replay_crop_ids=ids) for ids in _batches(replay_crop_ids)]
        if figures is not None:
            struct = json_format.ParseDict(dict(figures), Struct())
            requests.append(message(**self.key, figures=struct))
        for request in requests:
            self._call(partial(self._stub.ReportAdaptationRun, request, timeout=_CALL_SECONDS))

    def missing(self, crop_ids: Sequence[str]) -> set[str]:
        """Which of these crops the service has no longer.

        Raises:
            ResightError: The service refused to say, or did not come back.
        """
        found: set[str] = set()
        for ids in _batches(crop_ids):
            request = messages.CheckAdaptationCropsRequest(**self.key, crop_ids=ids)
            answer = self._call(
                partial(self._stub.CheckAdaptationCrops, request, timeout=_CALL_SECONDS)
            )
            found.update(answer.missing_crop_ids)
        return found

    def finish(
        self,
        state: State.ValueType,
        *,
        reason: str = "",
        message: str = "",
        patience: float | None = None,
    ) -> None:
        """End the run.

        Args:
            state: How it ended.
            reason: In UPPER_SNAKE_CASE; required unless it succeeded.
            message: For people.
            patience: Seconds to wait for a service that is away; as long as the lease when None.

        Raises:
            ResightError: The service refused it, or did not come back.
        """
        request = messages.FinishAdaptationRunRequest(
            **self.key, state=state, reason=reason, message=message[:2000]
        )
        self._call(
            partial(self._stub.FinishAdaptationRun, request, timeout=_CALL_SECONDS), patience
        )
        self._stop()

    def _call(self, call: Callable[[], T], patience: float | None = None) -> T:
        self.require()
        return patiently(call, seconds=self._patience if patience is None else patience)

    def _stop(self) -> None:
        self._ended.set()
        self._wake.set()

    def _beat(self) -> None:
        wait, away = self._interval, False
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            if self._ended.is_set():
                return
            request = messages.HeartbeatAdaptationRunRequest(**self.key, progress=self._progress)
            try:
                with translated():
                    self._stub.HeartbeatAdaptationRun(request, timeout=self._interval)
            except FailedPrecondition as error:
                # A beat may cross the end of the run; that is no loss.
                if error.reason != "RUN_ENDED":
                    self._fault = error
                    note(f"lease lost: {error.message}")
                return
            except ResightError as error:
                # The service decides by its own clock; it may be back before the lease expires.
                if not away:
                    note(f"heartbeat failed, trying again: {error.message}")
                wait, away = min(self._interval, _RETRY_SECONDS), True
            else:
                wait, away = self._interval, False


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _IDS_A_REPORT):
        yield ids[start : start + _IDS_A_REPORT]
