"""The folder of a run."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resight.errors import AlreadyExists, FailedPrecondition, InvalidArgument

__all__ = ["RunDirectory"]


@dataclass(frozen=True)
class RunDirectory:
    """Names of what a run writes under ``path``."""

    path: Path

    @property
    def bundle(self) -> Path:
        """The adapted encoder."""
        return self.path / "bundle"

    @property
    def checkpoint(self) -> Path:
        """State after the last whole epoch."""
        return self.path / "checkpoint.pt"

    @property
    def local_clusters(self) -> Path:
        """Results of CALR's first stage, camera by camera."""
        return self.path / "local_clusters"

    @property
    def unfinished(self) -> bool:
        """Whether there is something for ``--resume``."""
        return self.checkpoint.exists() or any(self.local_clusters.glob("*.pt"))

    @property
    def record(self) -> Path:
        """Resolved settings, seeds and versions."""
        return self.path / "run.json"

    @property
    def summary(self) -> Path:
        """Figures of the run."""
        return self.path / "summary.json"

    @property
    def plot(self) -> Path:
        """The summary as a picture."""
        return self.path / "summary.png"

    @property
    def skipped(self) -> Path:
        """Crops that were not used, with reasons."""
        return self.path / "skipped.csv"

    @property
    def cache(self) -> Path:
        """Where decoded crops are kept unless told otherwise."""
        return self.path / "cache"

    @contextmanager
    def opened(self, *, resume: bool, writing: bool = True) -> Iterator[None]:
        """Creates the folder and holds it against a second run.

        Args:
            resume: Whether the run may take up what is there.
            writing: Of the ranks of one run, one writes; the others have nothing to do here.

        Raises:
            AlreadyExists: It holds a run, and ``resume`` is not set.
            FailedPrecondition: Another run is writing to it.
            InvalidArgument: The path is a file.
        """
        if not writing:
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise InvalidArgument(
                f"--output {self.path} is not a folder", field="output"
            ) from error
        with (self.path / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FailedPrecondition(
                    f"--output {self.path}: another run is writing there", field="output"
                ) from error
            if not resume:
                self._require_free()
            self._remove_leftovers()
            yield

    def _remove_leftovers(self) -> None:
        """What a run killed while writing has left; nobody else writes here."""
        for path in (self.checkpoint, self.summary, self.record):
            path.with_name(f"{path.name}.partial").unlink(missing_ok=True)
        for path in self.path.glob(f".{self.bundle.name}.*"):
            shutil.rmtree(path, ignore_errors=True)

    def _require_free(self) -> None:
        if self.bundle.exists():
            raise AlreadyExists(
                f"--output {self.path} holds a finished run ({self.bundle}); name another folder",
                field="output",
            )
        if self.unfinished:
            raise AlreadyExists(
                f"--output {self.path} holds an unfinished run; continue it with --resume or name"
                " another folder",
                field="output",
            )
