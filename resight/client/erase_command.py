"""``resight erase``: crops listed, reviewed, removed for good, and the proof."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.client.connection import DEFAULT_TARGET, Connection, connect
from resight.client.erasure_listing import (
    listed,
    payload_of,
    show_list,
    state_of,
    write_list_sheet,
)
from resight.client.erasure_sheet import sheet_kind
from resight.client.erasure_subject import subject_of
from resight.client.options import AsJson, Gallery, Target
from resight.client.receipt import verified
from resight.console import emit, note, progress
from resight.errors import FailedPrecondition, InvalidArgument
from resight.v1 import admin_service_pb2 as messages

__all__ = ["app"]

app = typer.Typer(
    help="Remove crops for good, after a look at the list, with a signed receipt.",
    no_args_is_help=True,
)

_PAGE = 1000
_POLL_SECONDS = 1.0
_STATES = messages.Erasure.State

Erasure = Annotated[str, typer.Argument(metavar="ERASURE", help="Id that `plan` printed.")]
Keep = Annotated[list[str] | None, typer.Option(metavar="CROP", help="Crop that stays.")]
Sheet = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a contact sheet: .html or .png.")
]


@app.command()
def plan(
    reason: Annotated[str, typer.Option(help="Why, such as a case number.")],
    crop: Annotated[list[str] | None, typer.Option(metavar="ID", help="This crop.")] = None,
    track: Annotated[str | None, typer.Option(help="A track; of --camera, or of all.")] = None,
    camera: Annotated[
        list[str] | None, typer.Option(help="All of a camera, or with others: only of it.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Captured from then on, RFC 3339.")] = None,
    end: Annotated[str | None, typer.Option(help="Captured before, RFC 3339.")] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Everything like it; it is not stored.")
    ] = None,
    like_crop: Annotated[
        str | None, typer.Option(metavar="ID", help="Everything like a stored crop, and that.")
    ] = None,
    min_probability: Annotated[
        float | None, typer.Option(help="With --like: least probability of one person.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="With --like: least cosine similarity.")
    ] = None,
    max_crops: Annotated[int, typer.Option(help="With --like: most crops.")] = 1000,
    sheet: Sheet = None,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """List the crops that would go; nothing is removed."""
    subject = subject_of(
        crop=crop,
        track=track,
        camera=camera,
        start=start,
        end=end,
        like=like,
        like_crop=like_crop,
        min_probability=min_probability,
        min_score=min_score,
        max_crops=max_crops,
    )
    if sheet is not None:
        sheet_kind(sheet)
    with connect(target) as connection:
        request = messages.CreateErasureRequest(gallery=gallery, subject=subject, reason=reason)
        made = connection.admin.CreateErasure(request).erasure
        with _staying(made, sheet):
            crops = list(listed(connection, gallery, made.erasure_id))
            if sheet is not None:
                write_list_sheet(connection, gallery, made, crops, sheet)
    show_list(made, crops, as_json=as_json, advice=True)


@app.command()
def show(
    erasure: Erasure,
    sheet: Sheet = None,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Print an erasure and its list."""
    with connect(target) as connection:
        request = messages.GetErasureRequest(gallery=gallery, erasure_id=erasure)
        found = connection.admin.GetErasure(request).erasure
        crops = list(listed(connection, gallery, erasure))
        if sheet is not None:
            write_list_sheet(connection, gallery, found, crops, sheet)
    show_list(found, crops, as_json=as_json, advice=found.state == _STATES.STATE_PLANNED)


@app.command()
def confirm(
    erasure: Erasure,
    crops: Annotated[
        int | None, typer.Option(help="How many go, by your count; asked for on a terminal.")
    ] = None,
    keep: Keep = None,
    output: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="Write the receipt there.")
    ] = None,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Remove the crops of a reviewed list, everywhere and for good."""
    with connect(target) as connection:
        if crops is None:
            crops = _asked(connection, gallery, erasure, len(set(keep or ())))
        request = messages.ConfirmErasureRequest(
            gallery=gallery, erasure_id=erasure, crops=crops, keep_crop_ids=keep or ()
        )
        done = _watched(connection, request, crops)
    if output is not None:
        output.write_text(done.receipt, encoding="utf-8")
    pending = json.loads(done.receipt)["receipt"]["removed_from"]["index"]["pending"]
    text = f"{done.removed} crops removed, {done.absent} were gone before, {done.kept} kept"
    if pending:
        text += f"\nstill to follow: {', '.join(pending)}"
    emit(payload_of(done), as_json=as_json, text=text)


@app.command()
def cancel(
    erasure: Erasure,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Withdraw an erasure that was not confirmed."""
    with connect(target) as connection:
        request = messages.CancelErasureRequest(gallery=gallery, erasure_id=erasure)
        found = connection.admin.CancelErasure(request).erasure
    emit(payload_of(found), as_json=as_json, text=f"erasure {erasure} is cancelled")


@app.command("list")
def list_(
    target: Target = DEFAULT_TARGET, gallery: Gallery = "default", as_json: AsJson = False
) -> None:
    """Print erasures, newest first."""
    found: list[messages.Erasure] = []
    with connect(target) as connection:
        token = ""
        while True:
            request = messages.ListErasuresRequest(
                gallery=gallery, page_size=_PAGE, page_token=token
            )
            page = connection.admin.ListErasures(request)
            found += page.erasures
            token = page.next_page_token
            if not token:
                break
    lines = [
        f"{each.erasure_id}  {state_of(each):<9} {each.removed:>8} of {each.crops:<8} "
        f"{each.create_time.ToJsonString():<24} {each.reason}"
        for each in found
    ]
    payload = {"erasures": [payload_of(each) for each in found]}
    emit(payload, as_json=as_json, text="\n".join(lines) or "no erasures")


@app.command()
def receipt(
    erasure: Erasure,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it there.")] = None,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
) -> None:
    """Print the signed receipt of an erasure that is done."""
    with connect(target) as connection:
        request = messages.GetErasureRequest(gallery=gallery, erasure_id=erasure)
        found = connection.admin.GetErasure(request).erasure
    if not found.receipt:
        raise FailedPrecondition(
            f"erasure {erasure} is {state_of(found)}: there is a receipt when it is done",
            field="erasure",
        )
    if output is None:
        sys.stdout.write(found.receipt + "\n")
    else:
        output.write_text(found.receipt, encoding="utf-8")


@app.command("verify-receipt")
def verify_receipt(
    file: Annotated[Path, typer.Argument(help="A receipt.")],
    public_key: Annotated[
        list[Path] | None,
        typer.Option(help="Key (PEM) that you know to be the service's; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that not a byte of what a receipt says was changed, and who signed it."""
    told = verified(file, public_key or ())
    crops = told.receipt["crops"]["removed"]["count"]
    by = "by a key that was given" if told.trusted else (
        "by the key in the receipt itself; to know whose it is, name the service's with "
        "--public-key (`resight audit keys` prints it)"
    )  # fmt: skip
    payload = {"signer": told.signer, "trusted": told.trusted, "receipt": told.receipt}
    text = (
        f"erasure {told.receipt['erasure_id']}: {crops} crops removed, complete "
        f"{told.receipt['complete_time']}\nsigned {told.signer}, {by}"
    )
    emit(payload, as_json=as_json, text=text)


@contextmanager
def _staying(made: messages.Erasure, sheet: Path | None) -> Iterator[None]:
    """Whatever fails behind a plan, the plan stays: say which, and how to go on."""
    try:
        yield
    except BaseException:
        of = f"{made.erasure_id} --gallery {shlex.quote(made.gallery)}"
        asked = "" if sheet is None else f" --sheet {shlex.quote(str(sheet))}"
        note(
            f"erasure {made.erasure_id} is planned, {made.crops} crops to go, though it could not "
            f"be shown; go on with: resight erase show {of}{asked}\n"
            f"or without a sheet, or withdraw it: resight erase cancel {of}"
        )
        raise


def _watched(
    connection: Connection, request: messages.ConfirmErasureRequest, crops: int
) -> messages.Erasure:
    """Confirms, and shows how far the service has come."""
    call: Any = connection.admin.ConfirmErasure.future(request)
    ended = threading.Event()
    call.add_done_callback(lambda _: ended.set())
    shown = 0
    with progress("erase", crops) as bar:
        while not ended.wait(_POLL_SECONDS):
            about = messages.GetErasureRequest(
                gallery=request.gallery, erasure_id=request.erasure_id
            )
            found = connection.admin.GetErasure(about).erasure
            bar.advance(found.removed + found.absent - shown)
            shown = found.removed + found.absent
        done: messages.Erasure = call.result().erasure
        bar.advance(max(0, crops - shown))
    return done


def _asked(connection: Connection, gallery: str, erasure: str, kept: int) -> int:
    """The count, typed by a person who sees it."""
    if not sys.stdin.isatty():
        raise InvalidArgument(
            "name the number of crops that go with --crops, as a check that the list was read",
            field="crops",
        )
    request = messages.GetErasureRequest(gallery=gallery, erasure_id=erasure)
    found = connection.admin.GetErasure(request).erasure
    note(f"{found.crops - kept} crops will be removed for good ({found.subject})")
    return int(typer.prompt("type their number to go on", type=int, err=True))
