"""`resight audit`: verify, export and report what was done with the data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.options import AsJson, Target, instant
from resight.console import emit, note
from resight.errors import InvalidArgument
from service.audit.anchors import open_anchors
from service.audit.catalog_registers import CatalogRegisters
from service.audit.chain_check import Fault
from service.audit.export import export_entries
from service.audit.head_file import HEAD_FILE, HeadFile
from service.audit.processes import Processes
from service.audit.reading import CatalogAudit, ServiceAudit, Source, opened_catalog
from service.audit.registers import Registers
from service.audit.report import Tally, Told, html_page
from service.audit.service_registers import ServiceRegisters
from service.audit.span import Span
from service.audit.tables import csv_text
from service.audit.verifying import Verdict, anchors_of
from service.catalog.audit import Selection
from service.clock import SystemClock
from service.domain.names import DEFAULT_GALLERY
from service.settings import ServiceSettings, load_settings
from service.signing import PublicKeys

__all__ = ["app"]

app = typer.Typer(help="Verify, export and report the audit.", no_args_is_help=True)

Data = Annotated[
    Path | None,
    typer.Option(
        help="Data directory: read its catalog (or RESIGHT_DATABASE_URL) and ask no service."
    ),
]
Start = Annotated[str | None, typer.Option(help="Recorded at or after this, RFC 3339.")]
End = Annotated[str | None, typer.Option(help="Recorded before this, RFC 3339.")]

_SHOWN_FAULTS = 20


@app.callback()
def _group() -> None:
    """Verify, export and report the audit."""


@app.command()
def verify(
    target: Target = DEFAULT_TARGET,
    data: Data = None,
    anchors: Annotated[
        str | None,
        typer.Option(help="Folder or fsspec URL of checkpoints kept outside (audit.anchor_url)."),
    ] = None,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(help="A key that you trust (PEM, `resight audit keys`); repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute every hash chain and check every signature; exit code 1 when something is wrong."""
    if data is None:
        if anchors is not None or public_key:
            raise InvalidArgument(
                "--anchors and --public-key need --data: a service that is asked for its own "
                "audit would check itself; run this where the catalog can be read",
                field="data",
            )
        with connect(target) as connection:
            verdict = ServiceAudit(connection).verdict()
    else:
        trusted = PublicKeys.read(public_key) if public_key else None
        stored = [] if anchors is None else anchors_of(open_anchors(anchors).all())
        if anchors is not None and not stored:
            raise InvalidArgument(f"there are no anchors at {anchors}", field="anchors")
        # Before the catalog, whose chains go on.
        head = HeadFile(data / HEAD_FILE).read()
        with opened_catalog(_settings(data)) as found:
            heads = [] if head is None else [head]
            verdict = CatalogAudit(found).checked(trusted, stored, heads)
    emit(_shown(verdict), as_json=as_json, text=_text(verdict))
    if verdict.faults:
        raise typer.Exit(1)


@app.command()
def keys(
    target: Target = DEFAULT_TARGET,
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option(help="Write each as SIGNER.pem into this folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the public keys that confirm checkpoints and receipts; keep them elsewhere."""
    with _source(target, data) as source:
        found = source.public_keys()
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        for signer, pem in found.items():
            (output / f"{_file_name(signer)}.pem").write_text(pem)
        note(f"{len(found)} keys are in {output}")
    text = "\n".join(f"# {signer}\n{pem.strip()}" for signer, pem in found.items())
    emit({"signers": found}, as_json=as_json, text=text or "no keys")


@app.command()
def export(
    output: Annotated[
        Path | None, typer.Option(help="Append JSON lines to this file; stdout when not given.")
    ] = None,
    cursor: Annotated[
        Path | None,
        typer.Option(help="File that remembers what was exported; only what is new is, next time."),
    ] = None,
    start: Start = None,
    end: End = None,
    gallery: Annotated[
        str, typer.Option(help="Of this gallery alone; of all, and of none, when empty.")
    ] = "",
    target: Target = DEFAULT_TARGET,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Write entries as JSON lines, oldest first, as a SIEM takes them."""
    with _source(target, data) as source:
        count = export_entries(
            source,
            output=output,
            cursor=cursor,
            gallery=gallery,
            start_time=instant(start, "--start"),
            end_time=instant(end, "--end"),
        )
    if output is None:
        note(f"{count} entries")
    else:
        emit({"entries": count, "output": output}, as_json=as_json, text=f"{count} entries")


@app.command()
def report(
    output: Annotated[Path | None, typer.Option(help="The HTML file to write.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Folder to write a CSV file of each table into.")
    ] = None,
    start: Start = None,
    end: End = None,
    gallery: Annotated[
        str, typer.Option(help="Of this gallery and of no other; of all when empty.")
    ] = "",
    target: Target = DEFAULT_TARGET,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Write the transparency report: searches by purpose, views, changes, denials, policy, models.

    The audit is verified first; a report on one that is not sound says so and exits with 1.
    """
    if output is None and csv is None:
        raise InvalidArgument("name --output FILE.html or --csv DIR, or both", field="output")
    wanted = Selection(
        gallery=gallery, start_time=instant(start, "--start"), end_time=instant(end, "--end")
    )
    tally = Tally()
    with _source(target, data) as source:
        verdict = source.verdict()
        tally.add_all(source.entries(wanted))
        if tally.refused:
            tally.take_back(source.entries(wanted))
        processes = Processes(Span.of(wanted))
        processes.read(source, tally.chains)
        named = sorted(tally.galleries | {DEFAULT_GALLERY})
        registers = _registers(source).tables(named, wanted)
        tables = [*tally.tables(), *processes.tables(), *registers]
    told = Told(
        source=str(data) if data is not None else target,
        made=SystemClock().now(),
        start_time=wanted.start_time,
        end_time=wanted.end_time,
        verdict=verdict,
        gallery=gallery,
    )
    if output is not None:
        _write(output, html_page(told, tally, tables))
    if csv is not None:
        csv.mkdir(parents=True, exist_ok=True)
        for table in tables:
            _write(csv / f"{table.name}.csv", csv_text(table))
    emit(
        {
            "entries": tally.entries,
            "sound": not verdict.faults,
            "tables": {table.name: len(table.rows) for table in tables},
            "output": output,
            "csv": csv,
        },
        as_json=as_json,
        text=f"{tally.entries} entries; the audit is {'NOT ' if verdict.faults else ''}sound",
    )
    if verdict.faults:
        raise typer.Exit(1)


def _registers(source: Source) -> Registers:
    if isinstance(source, CatalogAudit):
        return CatalogRegisters(source)
    assert isinstance(source, ServiceAudit)  # noqa: S101 -- there are two
    return ServiceRegisters(source)


def _write(path: Path, content: str) -> None:
    try:
        # It tells who searched for what: nobody else's business.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(content)
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be written ({error})", field="output") from error


def _file_name(signer: str) -> str:
    """It comes from a database, and becomes a path."""
    if not signer.isalnum():
        raise InvalidArgument(f"{signer!r} is no signer; the audit was altered", field="signer")
    return signer


@contextmanager
def _source(target: str, data: Path | None) -> Iterator[Source]:
    with ExitStack() as opening:
        if data is not None:
            yield CatalogAudit(opening.enter_context(opened_catalog(_settings(data))))
        else:
            yield ServiceAudit(opening.enter_context(connect(target)))


def _settings(data: Path) -> ServiceSettings:
    return load_settings({"data_dir": data})


def _shown(verdict: Verdict) -> dict[str, Any]:
    return {
        "sound": not verdict.faults,
        "chains": verdict.chains,
        "entries": verdict.entries,
        "checkpoints": verdict.checkpoints,
        "anchors": verdict.anchors,
        "unsigned_entries": verdict.unsigned_entries,
        "signers": verdict.signers,
        "keys_given": verdict.keys_given,
        "faults": [
            {
                "chain_id": fault.chain_id,
                "sequence": fault.sequence,
                "description": fault.description,
            }
            for fault in verdict.faults
        ],
    }


def _text(verdict: Verdict) -> str:
    lines = [
        f"{verdict.chains} chains, {verdict.entries} entries, {verdict.checkpoints} checkpoints, "
        f"{verdict.anchors} anchors; {verdict.unsigned_entries} entries not signed yet"
    ]
    if not verdict.keys_given:
        lines.append(
            "checked against the keys that the service itself stored only: whoever wrote the whole "
            "audit anew could have replaced them; give yours with --public-key"
        )
    lines += [
        f"WRONG: {_place(fault)}{fault.description}" for fault in verdict.faults[:_SHOWN_FAULTS]
    ]
    if len(verdict.faults) > _SHOWN_FAULTS:
        lines.append(f"and {len(verdict.faults) - _SHOWN_FAULTS} more; --json names all")
    lines.append("nothing is wrong" if not verdict.faults else f"{len(verdict.faults)} faults")
    return "\n".join(lines)


def _place(fault: Fault) -> str:
    """Of what a limited key is not told, and of a signer's key, there is none."""
    return f"chain {fault.chain_id} entry {fault.sequence}: " if fault.chain_id else ""
