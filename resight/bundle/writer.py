"""Writing a bundle: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf import json_format

from resight import __version__
from resight.bundle.attachments import Attachments, file_entry
from resight.bundle.bundle import Bundle, preprocessing_to_proto
from resight.bundle.golden import make_golden
from resight.bundle.graph_session import GraphSession
from resight.bundle.layout import (
    ENCODER,
    FORMAT_VERSION,
    MANIFEST,
    MANIFEST_DIGEST,
    MAX_BUNDLE_BYTES,
    MAX_ENCODER_BYTES,
    MAX_FILES,
    MODEL_CARD,
    check_inner_path,
    manifest_digest,
    model_version,
)
from resight.bundle.placement import place
from resight.bundle.reader import open_bundle
from resight.crops.preprocessing import Preprocessing
from resight.errors import AlreadyExists, InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["write_bundle"]

_RESERVED = frozenset({ENCODER, MANIFEST, MANIFEST_DIGEST, MODEL_CARD})


def write_bundle(
    output: Path,
    *,
    encoder: bytes,
    preprocessing: Preprocessing,
    provenance: bundle_pb2.Provenance,
    model_card: str,
    parity: Sequence[bundle_pb2.Parity] = (),
    extra_files: Mapping[str, bytes] | None = None,
    attachments: Attachments | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Writes and verifies a bundle; the output appears complete or not at all.

    Args:
        output: Folder to make, or a ``.tar``.
        encoder: Graph under the contract (``wrap_encoder`` makes one).
        preprocessing: The graph's input size and the resize filter.
        provenance: Where the encoder came from; producer and time are filled in when empty.
        model_card: Markdown (``render_model_card``).
        parity: Closeness to the network the graph was made from.
        extra_files: More files, by relative path.
        attachments: Files that the manifest describes, with their descriptions.
        overwrite: Whether a bundle already at ``output`` may be replaced.

    Raises:
        AlreadyExists: Something is at ``output`` and may not be replaced.
        InvalidArgument: The graph does not follow the contract, or a name or size is refused.
    """
    output = Path(os.path.abspath(output))
    _check_output(output, overwrite)
    if len(encoder) > MAX_ENCODER_BYTES:
        raise InvalidArgument(f"encoder: longer than {MAX_ENCODER_BYTES} bytes", field="encoder")
    session = GraphSession(encoder, preprocessing)
    attachments = attachments or Attachments()
    files = _collect(encoder, model_card, {**(extra_files or {}), **attachments.files})
    manifest = bundle_pb2.BundleManifest(
        format_version=FORMAT_VERSION,
        model_version=model_version(encoder, preprocessing),
        dimension=session.dimension,
        preprocessing=preprocessing_to_proto(preprocessing),
        provenance=_completed(provenance),
        golden=make_golden(session, preprocessing),
        parity=parity,
        files=[file_entry(name, data) for name, data in sorted(files.items())],
    )
    attachments.describe_in(manifest)
    text = json_format.MessageToJson(manifest, indent=2).encode() + b"\n"
    files |= {MANIFEST: text, MANIFEST_DIGEST: manifest_digest(text)}
    place(files, output)
    return open_bundle(output, golden=False)


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        output.parent.mkdir(parents=True)
    if not os.path.lexists(output) or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite:
        raise AlreadyExists(
            f"output: {output} exists; name another or ask to overwrite it", field="output"
        )
    is_bundle = (output / MANIFEST).is_file() or (output.is_file() and output.suffix == ".tar")
    if not is_bundle or output.is_symlink():
        raise AlreadyExists(
            f"output: {output} is not a bundle, so it is not overwritten; remove it yourself",
            field="output",
        )


def _collect(encoder: bytes, model_card: str, extra: Mapping[str, bytes]) -> dict[str, bytes]:
    for name in extra:
        check_inner_path(name)
        if name in _RESERVED:
            raise InvalidArgument(f"extra_files: {name} is written by the bundle", field=name)
    files = {ENCODER: encoder, MODEL_CARD: model_card.encode(), **extra}
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_BUNDLE_BYTES:
        raise InvalidArgument(
            f"extra_files: more than {MAX_FILES} files or {MAX_BUNDLE_BYTES} bytes",
            field="extra_files",
        )
    return files


def _completed(provenance: bundle_pb2.Provenance) -> bundle_pb2.Provenance:
    completed = bundle_pb2.Provenance()
    completed.CopyFrom(provenance)
    completed.producer = completed.producer or f"resight {__version__}"
    if not completed.HasField("create_time"):
        completed.create_time.GetCurrentTime()
        completed.create_time.nanos = 0
    return completed
