"""Writing a simulation: folders, manifests and a note of how it was made, all or nothing."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from resight.errors import AlreadyExists, InvalidArgument
from resight.simulate.camera import cameras
from resight.simulate.render import Studio
from resight.simulate.schedule import START, Shot, schedule
from resight.simulate.settings import SimulationSettings

__all__ = ["GENERATOR_VERSION", "SPLITS", "SimulationReport", "simulate"]

GENERATOR_VERSION = 1
"""Raised whenever equal settings would give other crops than before."""

SPLITS = ("train", "query", "gallery")
_COLUMNS = ("path", "camera", "capture_time", "track", "zone", "identity")
_CHUNK = 64
_WORTH_A_PROCESS = 400
_MAX_WORKERS = 64


@dataclass(frozen=True)
class SimulationReport:
    """What was written.

    Args:
        directory: Where it lies.
        crops: Number of crops of each split.
        identities: Number of identities of each split, distractors not counted.
        distractors: Crops of the gallery that show nobody of the query set.
    """

    directory: Path
    crops: dict[str, int]
    identities: dict[str, int]
    distractors: int


def simulate(
    settings: SimulationSettings,
    output: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> SimulationReport:
    """Write a simulation; the bytes depend on the settings alone.

    Args:
        settings: What to simulate.
        output: Folder to write; must not exist or be empty. It appears whole or not at all.
        workers: Processes to draw with; one for each processor when None.
        progress: Called with the number of crops written since the last call.

    Raises:
        AlreadyExists: ``output`` is there and not an empty folder.
        InvalidArgument: ``workers`` is out of range.
    """
    if workers is not None and not 1 <= workers <= _MAX_WORKERS:
        raise InvalidArgument(
            f"--workers {workers} must lie in 1 to {_MAX_WORKERS}", field="workers"
        )
    output = output.absolute()
    _refuse_occupied(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    shots = schedule(settings, cameras(settings.seed, settings.cameras, spread=0.0))
    partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        for split in SPLITS:
            (partial / split).mkdir()
        for done in _draw_all(settings, shots, partial, workers):
            progress(done)
        report = _report(shots, output)
        _write_manifests(settings, shots, partial)
        _write_note(settings, report, partial)
        partial.chmod(0o755)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return report


def _refuse_occupied(output: Path) -> None:
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise AlreadyExists(
            f"--output {output} is not an empty folder; name a new one or remove it", field="output"
        )


def _draw_all(
    settings: SimulationSettings, shots: Sequence[Shot], folder: Path, workers: int | None
) -> Iterator[int]:
    chunks = [shots[start : start + _CHUNK] for start in range(0, len(shots), _CHUNK)]
    if workers is None:
        wanted = min(len(os.sched_getaffinity(0)), _MAX_WORKERS)
        workers = wanted if len(shots) >= _WORTH_A_PROCESS else 1
    if workers == 1:
        studio = Studio(settings)
        for chunk in chunks:
            yield _draw(studio, chunk, folder)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_open_studio, initargs=(settings, folder)
    ) as pool:
        yield from pool.map(_draw_in_process, chunks)


_studio: tuple[Studio, Path] | None = None


def _open_studio(settings: SimulationSettings, folder: Path) -> None:
    global _studio
    _studio = (Studio(settings), folder)


def _draw_in_process(chunk: Sequence[Shot]) -> int:
    if _studio is None:
        raise RuntimeError("the worker was started without its initializer")
    return _draw(_studio[0], chunk, _studio[1])


def _draw(studio: Studio, chunk: Sequence[Shot], folder: Path) -> int:
    for shot in chunk:
        (folder / shot.split / shot.name).write_bytes(studio.picture(shot))
    return len(chunk)


def _report(shots: Sequence[Shot], output: Path) -> SimulationReport:
    crops = Counter(shot.split for shot in shots)
    people = {
        split: len({shot.identity for shot in shots if shot.split == split and shot.identity})
        for split in SPLITS
    }
    distractors = sum(shot.identity == 0 for shot in shots)
    return SimulationReport(output, {split: crops[split] for split in SPLITS}, people, distractors)


def _write_manifests(settings: SimulationSettings, shots: Sequence[Shot], folder: Path) -> None:
    site = cameras(settings.seed, settings.cameras, spread=settings.camera_spread)
    for split in SPLITS:
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            for shot in shots:
                if shot.split != split:
                    continue
                camera = site[shot.camera - 1]
                moment = shot.capture_time.isoformat(timespec="milliseconds")
                writer.writerow(
                    (f"{split}/{shot.name}", camera.name, moment.replace("+00:00", "Z"),
                     shot.track, camera.zone, shot.identity)
                )  # fmt: skip


def _write_note(settings: SimulationSettings, report: SimulationReport, folder: Path) -> None:
    note = {
        "generator_version": GENERATOR_VERSION,
        "settings": asdict(settings),
        "start": START.isoformat().replace("+00:00", "Z"),
        "crops": report.crops,
        "identities": report.identities,
        "distractors": report.distractors,
        "people": "drawn by a program; no real person is shown",
    }
    text = json.dumps(note, indent=2, sort_keys=True) + "\n"
    (folder / "simulation.json").write_text(text, encoding="utf-8")
