"""`resight audit`: verify, export and report what was done with the data."""

from __future__ import annotations

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
from service.audit.export import export_entries
from service.audit.reading import CatalogAudit, ServiceAudit, Source, opened_catalog
from service.audit.verifying import Verdict, anchors_of
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
        with opened_catalog(_settings(data)) as found:
            verdict = CatalogAudit(found).checked(trusted, stored)
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
            start_time=instant(start, "--start"),
            end_time=instant(end, "--end"),
        )
    if output is None:
        note(f"{count} entries")
    else:
        emit({"entries": count, "output": output}, as_json=as_json, text=f"{count} entries")


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
        f"WRONG: chain {fault.chain_id} entry {fault.sequence}: {fault.description}"
        for fault in verdict.faults[:_SHOWN_FAULTS]
    ]
    if len(verdict.faults) > _SHOWN_FAULTS:
        lines.append(f"and {len(verdict.faults) - _SHOWN_FAULTS} more; --json names all")
    lines.append("nothing is wrong" if not verdict.faults else f"{len(verdict.faults)} faults")
    return "\n".join(lines)
