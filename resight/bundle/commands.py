"""``resight bundle``: import, inspect and verify encoders, build their engines."""

from __future__ import annotations

from enum import StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf import json_format

from resight.bundle.attachments import describe_attachments
from resight.bundle.bundle import Bundle
from resight.bundle.half_check import verify_half
from resight.bundle.importing import InputContract, import_encoder
from resight.bundle.layout import ENCODER, MAX_ENCODER_BYTES
from resight.bundle.reader import open_bundle, verify_golden
from resight.console import emit, note
from resight.crops.preprocessing import Preprocessing
from resight.engines.check import check_engines
from resight.engines.commands import engine, sample_crops
from resight.errors import InvalidArgument

__all__ = ["app"]

_MAX_CARD_BYTES = 1024 * 1024

app = typer.Typer(help="Import, inspect and verify encoders.", no_args_is_help=True)
app.command()(engine)

BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder or .tar.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class LayoutChoice(StrEnum):
    """Order of an input's dimensions."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class ChannelChoice(StrEnum):
    """Order of an input's channels."""

    RGB = "RGB"
    BGR = "BGR"


class FilterChoice(StrEnum):
    """Resize filters."""

    bilinear = "bilinear"
    bicubic = "bicubic"


@app.command("import")
def import_(
    model: Annotated[Path, typer.Argument(metavar="MODEL.ONNX", help="The encoder.")],
    output: Annotated[Path, typer.Option(help="Folder or .tar to write.")],
    height: Annotated[int, typer.Option(min=1, help="Input height in pixels.")],
    width: Annotated[int, typer.Option(min=1, help="Input width in pixels.")],
    mean: Annotated[
        str, typer.Option(help="Subtracted after scaling: three numbers, or one for all.")
    ],
    std: Annotated[str, typer.Option(help="Divided by: three numbers, or one for all.")],
    scale: Annotated[str, typer.Option(help="Factor on pixel values 0..255.")] = "1/255",
    layout: Annotated[LayoutChoice, typer.Option(help="Order of dimensions.")] = LayoutChoice.NCHW,
    channel_order: Annotated[
        ChannelChoice, typer.Option(help="Order of channels, of mean and of std.")
    ] = ChannelChoice.RGB,
    resize_filter: Annotated[
        FilterChoice, typer.Option(help="Filter the encoder was trained with.")
    ] = FilterChoice.bilinear,
    output_name: Annotated[
        str | None, typer.Option(help="The embedding, if the graph has several outputs.")
    ] = None,
    name: Annotated[str, typer.Option(help="Title of the model card.")] = "imported encoder",
    model_card: Annotated[
        Path | None, typer.Option(help="Your own model card, instead of one that knows nothing.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle at --output.")] = False,
    as_json: AsJson = False,
) -> None:
    """Wrap somebody's ONNX encoder; the result is compared with the original before it is kept."""
    contract = InputContract(
        layout=layout.value,
        height=height,
        width=width,
        scale=_numbers("scale", scale, 1)[0],
        mean=_numbers("mean", mean, 3),
        std=_numbers("std", std, 3),
        channel_order=channel_order.value,
        output_name=output_name,
    )
    card = None
    if model_card is not None:
        card = _read("model_card", model_card, _MAX_CARD_BYTES).decode("utf-8", "replace")
    bundle = import_encoder(
        _read("model", model, MAX_ENCODER_BYTES),
        contract,
        output=output,
        preprocessing=Preprocessing(height, width, resize_filter.value),
        name=name,
        model_card=card,
        overwrite=overwrite,
    )
    if card is None:
        note("the model card says that data and metrics are unknown; give yours with --model-card")
    emit(
        _describe(bundle, output), as_json=as_json, text=f"wrote {output}\n{_text(bundle, output)}"
    )


@app.command()
def inspect(bundle: BundlePath, as_json: AsJson = False) -> None:
    """Show what a bundle says of itself; every digest is verified, the graph is not run."""
    opened = open_bundle(bundle, golden=False)
    manifest = json_format.MessageToDict(opened.manifest, preserving_proto_field_name=True)
    manifest["golden"].pop("embeddings", None)
    emit(
        _describe(opened, bundle) | {"manifest": manifest},
        as_json=as_json,
        text=_text(opened, bundle),
    )


@app.command()
def verify(
    bundle: BundlePath,
    engines: Annotated[
        bool, typer.Option(help="Also run the engines that are for this machine's GPU.")
    ] = False,
    crops: Annotated[
        str | None,
        typer.Option(help="Folder or manifest: with --engines, compare rankings of its crops."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify every digest and recompute the golden outputs."""
    if crops is not None and not engines:
        raise InvalidArgument("--crops is for --engines: give both", field="crops")
    opened = open_bundle(bundle, golden=False)
    cosine = verify_golden(opened)
    files = len(opened.manifest.files)
    payload: dict[str, Any] = {"verified": True, "files": files, "golden_min_cosine": cosine}
    text = (
        f"{bundle}: {files} files and {opened.manifest.golden.count} golden outputs are as"
        f" written (lowest cosine {cosine:.6f}); model version {opened.model_version}"
    )
    half = verify_half(opened)
    if half is not None:
        payload["fp16_min_cosine"] = half
        text += f"; fp16 graph, lowest cosine {half:.6f}"
    if engines:
        pixels = None if crops is None else sample_crops(crops, opened.preprocessing)
        verdicts = check_engines(opened, crops=pixels)
        payload["engines"] = [verdict.payload() for verdict in verdicts]
        text = "\n".join([text, *(verdict.text() for verdict in verdicts)])
    emit(_describe(opened, bundle) | payload, as_json=as_json, text=text)


def _read(field: str, path: Path, limit: int) -> bytes:
    if not path.is_file():
        raise InvalidArgument(f"{field}: no file at {path}; name one", field=field)
    if path.stat().st_size > limit:
        raise InvalidArgument(f"{field}: {path} is longer than {limit} bytes", field=field)
    return path.read_bytes()


def _numbers(field: str, text: str, count: int) -> tuple[float, ...]:
    parts = text.replace(",", " ").split()
    try:
        values = tuple(float(Fraction(part)) for part in parts)
    except (ValueError, ZeroDivisionError, OverflowError):
        values = ()
    if len(values) not in {1, count}:
        raise typer.BadParameter(
            f"{text!r} is not {'one number' if count == 1 else 'one or three numbers'}, such as"
            f" {'1/255' if count == 1 else '0.485,0.456,0.406'}",
            param_hint=f"--{field}",
        )
    return values if len(values) == count else values * count


def _describe(bundle: Bundle, path: Path) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "bundle": str(path),
        "model_version": bundle.model_version,
        "parent_version": manifest.provenance.parent_version,
        "method": manifest.provenance.method,
        "dimension": bundle.dimension,
        "height": bundle.preprocessing.height,
        "width": bundle.preprocessing.width,
        "resize_filter": bundle.preprocessing.resize_filter,
        "parity": [
            {
                "path": entry.path or ENCODER,
                "batch_size": entry.batch_size,
                "min_cosine": entry.min_cosine,
                "max_abs_difference": entry.max_abs_difference,
            }
            for entry in manifest.parity
        ],
    }


def _text(bundle: Bundle, path: Path) -> str:
    manifest, size = bundle.manifest, bundle.preprocessing
    origin = manifest.provenance
    lines = [
        f"bundle         {path}",
        f"model version  {bundle.model_version}",
        f"method         {origin.method}" + (f", run {origin.run_id}" if origin.run_id else ""),
        f"parent         {origin.parent_version or 'none'}",
        f"written        {origin.create_time.ToJsonString()} by {origin.producer}",
        f"input          {size.height} x {size.width}, {size.resize_filter}",
        f"dimension      {bundle.dimension}",
    ]
    lines += [
        f"parity         {entry.path or ENCODER}, batch {entry.batch_size}: cosine >="
        f" {entry.min_cosine:.6f}, difference <= {entry.max_abs_difference:.2e}"
        for entry in manifest.parity
    ]
    lines += describe_attachments(manifest)
    lines += [
        f"file           {entry.path}, {entry.size_bytes} bytes, sha256 {entry.sha256[:16]}…"
        for entry in manifest.files
    ]
    return "\n".join(lines)
