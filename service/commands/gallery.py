"""`resight gallery`: what is stored, counted, compared, backed up and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import typer

from resight.client.connection import DEFAULT_TARGET
from resight.client.options import AsJson, Gallery, Target
from resight.console import emit, note
from service.audit.operation import PREFIX, operating
from service.call import Noted
from service.commands import verification
from service.settings import ServiceSettings, load_settings
from service.snapshot.restoring import restore as restore_snapshot
from service.snapshot.taking import take

__all__ = ["app"]

app = typer.Typer(help="Count, verify, back up and restore what is stored.", no_args_is_help=True)

Data = Annotated[Path | None, typer.Option(help="Data directory. [RESIGHT_DATA_DIR]")]

# Between two lines of progress.
INTERVAL = 5.0


@app.command()
def stats(
    target: Target = DEFAULT_TARGET, gallery: Gallery = "default", as_json: AsJson = False
) -> None:
    """Print what a gallery of a running service holds."""
    found = verification.stats(target, gallery)
    text = "\n".join(f"{name.replace('_', ' '):<20} {value}" for name, value in found.items())
    emit(found, as_json=as_json, text=text)


@app.command()
def verify(
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    data: Annotated[
        Path | None,
        typer.Option(help="Verify this data directory of a stopped service, every gallery of it."),
    ] = None,
    all_images: Annotated[bool, typer.Option("--all-images", help="Read every image.")] = False,
    sample: Annotated[
        int | None, typer.Option(min=0, help="Read so many images; 100 unless set.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Make the index what the catalog says.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare catalog, index and images; exit code 1 when something is wrong."""
    with _progress() as told:
        if data is None:
            reports = [verification.running(target, gallery, all_images, sample, repair, told)]
        else:
            settings = load_settings({"data_dir": data})
            with operating(settings, f"{PREFIX}repair") if repair else nullcontext():
                reports = verification.stopped(settings, all_images, sample, repair, told)
    sound = not any(report["findings"] for report in reports)
    emit(
        {"sound": sound, "galleries": reports},
        as_json=as_json,
        text="\n".join(verification.text_of(report) for report in reports) or "no galleries",
    )
    if not sound:
        raise typer.Exit(1)


@app.command()
def snapshot(
    output: Annotated[Path, typer.Option(help="The folder, or .tar, to make; it must not exist.")],
    data: Data = None,
    images: Annotated[bool, typer.Option("--images", help="The crops' images, too.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle that is served. [RESIGHT_BUNDLE]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write everything that is stored, as of one moment; the service may be running."""
    settings = _settings(data, bundle)
    what: dict[str, Noted] = {"output": str(output.absolute()), "images": images}
    with _progress() as told, operating(settings, f"{PREFIX}snapshot", what) as operation:
        manifest = take(settings, output, images=images, told=told)
        operation.note(crops=manifest.tables.get("crops", 0))
    crops = manifest.tables.get("crops", 0)
    lines = [f"{output}: {crops} crops, schema {manifest.schema}"]
    if manifest.images is not None:
        kept = manifest.images
        lines.append(
            f"{kept.stored} images ({kept.size / 1e6:.1f} MB), {kept.deleted} of crops deleted "
            f"meanwhile, {kept.missing} missing, {kept.damaged} damaged"
        )
    shelved = len([name for name in manifest.files if name.endswith(".tar")])
    lines.append(f"{shelved} bundles, {len(manifest.missing_bundles)} missing")
    payload = {
        "output": output,
        "create_time": manifest.create_time,
        "schema": manifest.schema,
        "database": manifest.database,
        "tables": dict(manifest.tables),
        "galleries": dict(manifest.galleries),
        "images": None if manifest.images is None else _fields(manifest.images),
        "bundles": shelved,
        "missing_bundles": manifest.missing_bundles,
        "size_bytes": sum(entry.size for entry in manifest.files.values()),
    }
    emit(payload, as_json=as_json, text="\n".join(lines))


@app.command()
def restore(
    source: Annotated[
        Path, typer.Argument(metavar="SNAPSHOT", help="What `resight gallery snapshot` made.")
    ],
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Fill an empty data directory and database from a snapshot; erased crops stay erased."""
    settings = _settings(data, None)
    what: dict[str, Noted] = {"snapshot": str(source.absolute())}

    def written() -> None:
        with operating(settings, f"{PREFIX}restore", what):
            pass

    with _progress() as told:
        restored = restore_snapshot(settings, source, told=told, written=written)
    manifest = restored.manifest
    live = sorted({str(each["live_model"]) for each in manifest.galleries.values()})
    text = (
        f"{manifest.tables.get('crops', 0) - restored.erased} crops and {restored.images} images "
        f"of {manifest.create_time} restored, schema {manifest.schema} -> {restored.schema}; "
        f"{restored.erased} crops erased again\n{restored.encoders}"
    )
    if keys := manifest.tables.get("api_keys", 0):
        kept = settings.resolved_erasures_dir() / "revoked-keys"
        text += (
            f"\n{keys} API keys as they were then; those revoked since are revoked again at the "
            f"next start where {kept} names them: look with `resight keys list --data` before "
            "anybody can connect"
        )
    payload = {
        "snapshot": source,
        "create_time": manifest.create_time,
        "schema": restored.schema,
        "images": restored.images,
        "erased": restored.erased,
        "tables": dict(manifest.tables),
        "live_models": live,
        "archived_models": restored.encoders.archived,
        "needed_models": restored.encoders.needed,
    }
    emit(payload, as_json=as_json, text=text)


def _settings(data: Path | None, bundle: Path | None) -> ServiceSettings:
    given = {"data_dir": data, "bundle": bundle}
    return load_settings({name: value for name, value in given.items() if value is not None})


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


@contextmanager
def _progress() -> Iterator[Callable[[str, int], None]]:
    """Counts by what is being done; a line on stderr now and then."""
    done: dict[str, int] = {}
    last = monotonic()

    def told(stage: str, count: int) -> None:
        nonlocal last
        done[stage] = done.get(stage, 0) + count
        if monotonic() - last >= INTERVAL:
            last = monotonic()
            note(", ".join(f"{name}: {number}" for name, number in done.items()))

    yield told
