"""The folder of a run."""

from __future__ import annotations

import fcntl
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
            FailedPrecondition: Another run is writing to it, or it holds a finished one.
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
            self._require_free(resume=resume)
            yield

    def _require_free(self, *, resume: bool) -> None:
        if self.bundle.exists():
            raise AlreadyExists(
                f"--output {self.path} holds a finished run ({self.bundle}); name another folder",
                field="output",
            )
        if self.checkpoint.exists() and not resume:
            raise AlreadyExists(
                f"--output {self.path} holds an unfinished run; continue it with --resume or name"
                " another folder",
                field="output",
            )
