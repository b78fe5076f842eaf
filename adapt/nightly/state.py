"""What one night leaves for the next, in one folder.

``night.json``     the last success, the last outcome, how long what follows training took
``baseline.tar``   the live encoder of the first night: no chain of nights may fall behind it
``candidate.tar``  the newest candidate that was verified and registered
``report.html``    what the last night found, and in ``report.crops`` of which crops it was made
``work``           crops and run of the night that runs; removed at its end, and at the next start

Files appear complete or not at all. ``work`` holds images of people: it is for this user alone,
and with ``memory_only`` it lies in memory (``/dev/shm``) instead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resight.bundle import Bundle, pack
from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["Memory", "NightState"]

_TMPFS = frozenset({"tmpfs", "ramfs"})
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 -- checked to be memory before it is used


@dataclass(frozen=True)
class Memory:
    """What is remembered from night to night.

    Attributes:
        last_success: Seconds since 1970 of the last registered candidate; None before the first.
        tail_seconds: What export, gate and registration took in the last night that reached them.
        last: The last night's outcome, as JSON values.
    """

    last_success: float | None = None
    tail_seconds: float | None = None
    last: dict[str, Any] | None = None


class NightState:
    """The folder of one gallery's nights on this machine."""

    def __init__(self, path: Path, *, memory_only: bool = False) -> None:
        self.path = path
        self._memory_only = memory_only

    @property
    def baseline(self) -> Path:
        """The frozen encoder."""
        return self.path / "baseline.tar"

    @property
    def candidate(self) -> Path:
        """The newest registered candidate."""
        return self.path / "candidate.tar"

    @property
    def report(self) -> Path:
        """The last night's page."""
        return self.path / "report.html"

    def reported(self) -> list[str] | None:
        """Ids of the crops that the report was made of; None where nobody knows."""
        try:
            return self._report_crops.read_text("ascii").split()
        except (OSError, ValueError):
            return None

    def will_report(self, crop_ids: Iterable[str]) -> None:
        """Note of which crops a report is about to be made; there is none before."""
        self.forget_report()
        text = "".join(f"{crop_id}\n" for crop_id in crop_ids)
        self._replace(self._report_crops, lambda path: path.write_text(text, "ascii"))

    def forget_report(self) -> None:
        """Remove the report, and whatever an unfinished one left."""
        for path in self.path.glob(f"{self.report.name}*"):
            path.unlink()
        self._report_crops.unlink(missing_ok=True)

    @property
    def _report_crops(self) -> Path:
        return self.path / "report.crops"

    @property
    def work(self) -> Path:
        """Where the running night keeps crops and run."""
        if not self._memory_only:
            return self.path / "work"
        name = hashlib.sha256(os.fsencode(self.path.resolve())).hexdigest()[:16]
        return _SHARED_MEMORY / f"resight-night-{os.getuid()}-{name}"

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Holds the folder against a second night and begins and ends with no work in it.

        Raises:
            FailedPrecondition: A night runs on it already, or there is no memory to work in.
            InvalidArgument: The path is a file.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidArgument(f"--state {self.path} is not a folder", field="state") from error
        if self._memory_only:
            _require_memory(_SHARED_MEMORY)
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FailedPrecondition(
                    f"--state {self.path}: a night runs on it already; wait for its end, or give "
                    "this gallery a state folder of its own",
                    field="state",
                    reason="STATE_IN_USE",
                ) from error
            # What is there was left by a night that was killed.
            self._clean()
            self.work.mkdir(mode=0o700)
            try:
                yield
            finally:
                self._clean()

    def memory(self) -> Memory:
        """What is remembered; nothing where the file is missing or not ours."""
        try:
            return Memory(**json.loads((self.path / "night.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return Memory()

    def remember(self, memory: Memory) -> None:
        """Replace what is remembered."""
        text = json.dumps(asdict(memory), indent=2, allow_nan=False) + "\n"
        self._replace(self.path / "night.json", lambda path: path.write_text(text, "utf-8"))

    def freeze(self, live: Bundle) -> Path:
        """The baseline, which is the live encoder when there is none yet."""
        if not self.baseline.exists():
            self._replace(self.baseline, lambda path: pack(live.directory, path))
        return self.baseline

    def keep_candidate(self, archive: Path) -> None:
        """Put a registered candidate's archive in its place."""
        self._replace(self.candidate, lambda path: shutil.copyfile(archive, path))

    def _replace(self, target: Path, write: Callable[[Path], object]) -> None:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.path) as folder:
            fresh = Path(folder, target.name)
            write(fresh)
            with fresh.open("rb") as stream:
                os.fsync(stream.fileno())
            fresh.replace(target)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def _clean(self) -> None:
        for left in (self.work, *self.path.glob(".new-*")):
            if left.exists():
                shutil.rmtree(left)


def _require_memory(path: Path) -> None:
    mounts = Path("/proc/mounts")
    lines = mounts.read_text("utf-8").splitlines() if mounts.exists() else []
    kinds = {line.split(" ")[1]: line.split(" ")[2] for line in lines}
    if kinds.get(str(path)) not in _TMPFS or not os.access(path, os.W_OK):
        raise FailedPrecondition(
            f"--memory-only: {path} is no writable memory file system here, so crops would be "
            "written to a disk; mount one, or leave the option out",
            field="memory-only",
            reason="NO_MEMORY_FOLDER",
        )
