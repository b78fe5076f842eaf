"""What a finished run leaves, and how a later process finds it finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapt.report.summary import RunSummary, write_json
from adapt.training.checkpoint import differing_settings
from adapt.training.config import RunConfig
from adapt.training.directory import RunDirectory
from resight.bundle.reader import open_bundle
from resight.errors import AlreadyExists, ResightError

__all__ = ["RunOutcome", "find_finished"]


@dataclass(frozen=True)
class RunOutcome:
    """What a finished run leaves.

    Attributes:
        directory: Of the run.
        model_version: Of the bundle.
        summary: Figures; of several ranks the first's are the run's.
        first: Whether this process is the one to report it.
    """

    directory: RunDirectory
    model_version: str
    summary: RunSummary
    first: bool = True

    def payload(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {
            **self.summary.payload(),
            "output": str(self.directory.path),
            "bundle": str(self.directory.bundle),
            "model_version": self.model_version,
        }


def find_finished(
    directory: RunDirectory, config: RunConfig, sources: Mapping[str, str | None], *, first: bool
) -> RunOutcome | None:
    """The outcome of a run that has ended, None where there is no bundle yet.

    A run may have been killed between the bundle, which appears whole, and the summary beside it:
    the bundle's own is then put there.

    Args:
        config: Resolved, as the run has it.
        sources: Where its crops came from, as the record names them.
        first: Whether this process writes.

    Raises:
        AlreadyExists: The bundle is damaged, or of another run.
    """
    if not directory.bundle.exists():
        return None
    try:
        bundle = open_bundle(directory.bundle, golden=False)
        record = json.loads(directory.record.read_text())
        summary = RunSummary.read(json.loads((bundle.directory / "summary.json").read_text()))
    except (OSError, ValueError, TypeError, KeyError, ResightError) as error:
        raise AlreadyExists(
            f"--output {directory.path} holds a bundle that is not one of a finished run ({error});"
            " name another folder",
            field="output",
        ) from error
    differing = differing_settings(record["config"], config.model_dump(mode="json"))
    used = {name: record["crops"].get(name) for name in sources}
    differing += differing_settings(used, sources)
    if differing or summary.run_id != record["run_id"]:
        raise AlreadyExists(
            f"--output {directory.path} holds a finished run of other settings:"
            f" {', '.join(differing) or 'another run id'}; name another folder",
            field="output",
        )
    if first and not _complete(directory):
        write_json(directory.summary, summary.payload())
        directory.plot.write_bytes((bundle.directory / "summary.png").read_bytes())
    return RunOutcome(directory, bundle.manifest.model_version, summary, first)


def _complete(directory: RunDirectory) -> bool:
    try:
        return bool(json.loads(directory.summary.read_text())["complete"])
    except (OSError, ValueError, KeyError):
        return False
