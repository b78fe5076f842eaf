"""``resight models``: the encoders of a gallery, moved through their lives on a running service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.client.connection import DEFAULT_TARGET, connect
from resight.client.model_upload import archive_of
from resight.client.model_upload import register as upload
from resight.client.options import AsJson, Gallery, Target
from resight.console import emit
from resight.v1 import model_service_pb2 as messages
from resight.v1.model_service_pb2_grpc import ModelServiceStub

__all__ = ["app"]

app = typer.Typer(
    help="Register, list, stage, promote, roll back and retire encoders.", no_args_is_help=True
)

Version = Annotated[str, typer.Argument(help="Model version, as `resight models list` says.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the catalog.")]

_STATES = {
    messages.Model.STATE_CANDIDATE: "candidate",
    messages.Model.STATE_SHADOW: "shadow",
    messages.Model.STATE_LIVE: "live",
    messages.Model.STATE_PREVIOUS: "previous",
    messages.Model.STATE_RETIRED: "retired",
}
_FILLINGS = {
    messages.Filling.STATE_RUNNING: "running",
    messages.Filling.STATE_PAUSED: "paused",
    messages.Filling.STATE_COMPLETE: "complete",
}
_SOURCES = {
    messages.Filling.SOURCE_IMAGES: "images",
    messages.Filling.SOURCE_MAP: "map",
    messages.Filling.SOURCE_NONE: "none",
}
_GATES = {
    messages.GateVerdict.OUTCOME_UNSPECIFIED: "unknown",
    messages.GateVerdict.OUTCOME_PASSED: "passed",
    messages.GateVerdict.OUTCOME_REFUSED: "refused",
}


@app.command("list")
def list_(
    target: Target = DEFAULT_TARGET, gallery: Gallery = "default", as_json: AsJson = False
) -> None:
    """Print every encoder that a gallery knows, newest first."""
    with connect(target) as connection:
        models = [_shown(model) for model in _all(connection.models, gallery)]
    lines = [
        f"{m['model_version']:<18} {m['state']:<10} gate {m['gate']:<8} {m['create_time']}"
        for m in models
    ]
    emit({"models": models}, as_json=as_json, text="\n".join(lines) or "no models")


@app.command()
def show(
    version: Version,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Print one encoder and, once it was staged, how far it is filled."""
    with connect(target) as connection:
        found = connection.models.GetModel(
            messages.GetModelRequest(gallery=gallery, model_version=version)
        )
    filling = _filling(found.filling) if found.HasField("filling") else None
    text = f"{version} is {_STATES[found.model.state]}"
    if filling is not None:
        text += "\n" + _progress(filling)
        text += "".join(f"\n  {f['crop_id']} {f['reason']}" for f in filling["failures"])
    emit({"model": _shown(found.model), "filling": filling}, as_json=as_json, text=text)


@app.command()
def register(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or a .tar of it.")
    ],
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Send a bundle to the service, which verifies and keeps it as a candidate."""
    with archive_of(bundle) as archive, connect(target) as connection:
        model = upload(connection.models, gallery, archive)
    text = f"{model.model_version} is a {_STATES[model.state]}"
    emit({"model": _shown(model)}, as_json=as_json, text=text)


@app.command()
def stage(
    version: Version,
    retire_previous: Annotated[
        bool, typer.Option("--retire-previous", help="Make room by retiring the previous model.")
    ] = False,
    reason: Reason = "",
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Make a candidate the shadow: it gets a vector of every crop, and answers nobody yet."""
    with connect(target) as connection:
        done = connection.models.StageModel(
            messages.StageModelRequest(
                gallery=gallery,
                model_version=version,
                retire_previous=retire_previous,
                reason=reason,
            )
        )
    filling = _filling(done.filling)
    payload = {
        "model": _shown(done.model),
        "filling": filling,
        "retired_version": done.retired_version,
    }
    text = f"{version} is the shadow; {_progress(filling)}"
    if done.retired_version:
        text += f"\n{done.retired_version} was retired for it"
    emit(payload, as_json=as_json, text=text)


@app.command()
def promote(
    version: Version,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Crops without its vector may be lost to search")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Without the gate's verdict; needs --reason.")
    ] = False,
    reason: Reason = "",
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Make the shadow the model that answers, once a sample of its vectors was verified."""
    with connect(target) as connection:
        done = connection.models.PromoteModel(
            messages.PromoteModelRequest(
                gallery=gallery,
                model_version=version,
                allow_missing=allow_missing,
                force=force,
                reason=reason,
            )
        )
    payload = {
        "model": _shown(done.model),
        "previous_version": done.previous_version,
        "sampled_crops": done.sampled_crops,
        "vectors": done.vectors,
        "unsearchable_crops": done.unsearchable_crops,
        "dual_served_crops": done.dual_served_crops,
    }
    text = (
        f"{version} answers; {done.previous_version} is kept to go back to. {done.vectors} "
        f"vectors, {done.sampled_crops} made anew and compared"
    )
    if done.unsearchable_crops:
        text += f"; {done.unsearchable_crops} crops can be found no more"
    if done.dual_served_crops:
        text += f"; {done.dual_served_crops} older crops are found with {done.previous_version}"
    emit(payload, as_json=as_json, text=text)


@app.command()
def rollback(
    leaving: Annotated[
        str, typer.Option(help="The model to leave; refused when another one answers.")
    ] = "",
    reason: Reason = "",
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Make the previous model answer again, at once."""
    with connect(target) as connection:
        done = connection.models.RollbackModel(
            messages.RollbackModelRequest(gallery=gallery, reason=reason, model_version=leaving)
        )
    payload = {"model": _shown(done.model), "previous_version": done.previous_version}
    text = f"{done.model.model_version} answers again; {done.previous_version} is kept"
    emit(payload, as_json=as_json, text=text)


@app.command()
def retire(
    version: Version,
    reason: Reason = "",
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Retire a candidate, the shadow or the previous model; its vectors are deleted."""
    with connect(target) as connection:
        done = connection.models.RetireModel(
            messages.RetireModelRequest(gallery=gallery, model_version=version, reason=reason)
        )
    emit({"model": _shown(done.model)}, as_json=as_json, text=f"{version} is retired")


@app.command()
def pause(
    version: Version,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Let the filling of the shadow rest."""
    with connect(target) as connection:
        done = connection.models.PauseFilling(
            messages.PauseFillingRequest(gallery=gallery, model_version=version)
        )
    filling = _filling(done.filling)
    emit({"filling": filling}, as_json=as_json, text=_progress(filling))


@app.command()
def resume(
    version: Version,
    target: Target = DEFAULT_TARGET,
    gallery: Gallery = "default",
    as_json: AsJson = False,
) -> None:
    """Let it go on, and try again the crops that failed."""
    with connect(target) as connection:
        done = connection.models.ResumeFilling(
            messages.ResumeFillingRequest(gallery=gallery, model_version=version)
        )
    filling = _filling(done.filling)
    emit({"filling": filling}, as_json=as_json, text=_progress(filling))


def _all(stub: ModelServiceStub, gallery: str) -> Iterator[messages.Model]:
    token = ""
    while True:
        page = stub.ListModels(messages.ListModelsRequest(gallery=gallery, page_token=token))
        yield from page.models
        token = page.next_page_token
        if not token:
            return


def _shown(model: messages.Model) -> dict[str, Any]:
    return {
        "model_version": model.model_version,
        "state": _STATES.get(model.state, str(model.state)),
        "dimension": model.dimension,
        "create_time": model.create_time.ToJsonString(),
        "parent_version": model.parent_version,
        "method": model.method,
        "run_id": model.run_id,
        "gate": _GATES.get(model.gate.outcome, str(model.gate.outcome)),
        "bundle_sha256": model.bundle_sha256.hex(),
        "bundle_size_bytes": model.bundle_size_bytes,
    }


def _filling(filling: messages.Filling) -> dict[str, Any]:
    ended = filling.complete_time.ToJsonString() if filling.HasField("complete_time") else None
    return {
        "source": _SOURCES.get(filling.source, str(filling.source)),
        "state": _FILLINGS.get(filling.state, str(filling.state)),
        "total_crops": filling.total_crops,
        "done_crops": filling.done_crops,
        "failed_crops": filling.failed_crops,
        "failures": [{"crop_id": item.crop_id, "reason": item.reason} for item in filling.failures],
        "start_time": filling.start_time.ToJsonString(),
        "update_time": filling.update_time.ToJsonString(),
        "complete_time": ended,
    }


def _progress(filling: dict[str, Any]) -> str:
    return (
        f"filling is {filling['state']}: {filling['done_crops']} of {filling['total_crops']} crops"
        f", {filling['failed_crops']} failed"
    )
