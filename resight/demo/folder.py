"""Where a demo is written, and what may be replaced."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from resight.errors import AlreadyExists

__all__ = ["DEFAULT_OUTPUT", "DemoFolder"]

DEFAULT_OUTPUT = Path("resight-demo")
_MARK = ".resight-demo"


@dataclass(frozen=True)
class DemoFolder:
    """Names of what a demo writes under ``path``."""

    path: Path

    @property
    def crops(self) -> Path:
        """The simulated crops."""
        return self.path / "crops"

    @property
    def before(self) -> Path:
        """Run of no epochs: the starting encoder as a bundle."""
        return self.path / "before"

    @property
    def after(self) -> Path:
        """The adaptation."""
        return self.path / "adapted"

    @property
    def cache(self) -> Path:
        """Decoded crops, shared by both runs."""
        return self.path / "cache"

    @property
    def data(self) -> Path:
        """Catalog and images of the service."""
        return self.path / "service"

    @property
    def logs(self) -> Path:
        """What each command wrote to stderr."""
        return self.path / "logs"

    @property
    def contact_sheet(self) -> Path:
        """Queries and their ranked matches."""
        return self.path / "contact-sheet.png"

    @property
    def summary(self) -> Path:
        """The figures of the demo."""
        return self.path / "demo.json"

    @classmethod
    def create(cls, output: Path | None, *, force: bool) -> DemoFolder:
        """Make the folder of a new demo.

        Args:
            output: Where; None takes ``resight-demo``, or the first free of ``resight-demo-2``, …
            force: Replace ``output`` when it holds an earlier demo.

        Raises:
            AlreadyExists: ``output`` is there; with ``force``, it holds something else.
        """
        folder = cls(_free_default() if output is None and not force else output or DEFAULT_OUTPUT)
        path = folder.path
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            if not force:
                raise AlreadyExists(
                    f"--output {path} is not empty; name a new folder, or replace an earlier demo "
                    "with --force",
                    field="output",
                )
            if not (path / _MARK).is_file():
                raise AlreadyExists(
                    f"--output {path} does not hold an earlier demo, so --force leaves it alone; "
                    "name a new folder",
                    field="output",
                )
            shutil.rmtree(path)
        folder.logs.mkdir(parents=True, exist_ok=True)
        (path / _MARK).write_text("Made by resight demo; replaced by its --force.\n", "utf-8")
        # Demos of a checkout are nobody's to commit, whatever the folder is called.
        (path / ".gitignore").write_text("*\n", "utf-8")
        return folder


def _free_default() -> Path:
    number, path = 1, DEFAULT_OUTPUT
    while path.exists():
        number += 1
        path = DEFAULT_OUTPUT.with_name(f"{DEFAULT_OUTPUT.name}-{number}")
    return path
