"""A trained embedder as a bundle: encoder, warm-start weights, model card, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format, struct_pb2

from adapt.backbones.embedder import Embedder
from adapt.backbones.warm_start import WARM_START_FILE, save_warm_start
from adapt.export.graph import EncoderGraph
from adapt.export.model_card import adapted_card
from adapt.export.onnx_export import ExportResult, export_embedder
from resight.bundle.attachments import Attachments
from resight.bundle.bundle import Bundle
from resight.bundle.writer import write_bundle
from resight.crops.preprocessing import Preprocessing
from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["export_bundle"]


def export_bundle(
    embedder: Embedder,
    *,
    output: Path,
    preprocessing: Preprocessing,
    method: str,
    run_id: str,
    config: Mapping[str, Any],
    parent_version: str = "",
    summary_files: Mapping[str, bytes] | None = None,
    data: str = "",
    metrics: Mapping[str, str] | None = None,
    exported: ExportResult | None = None,
    attachments: Attachments | None = None,
    overwrite: bool = False,
    graph: EncoderGraph | None = None,
) -> Bundle:
    """Write the bundle of an embedder.

    Args:
        embedder: On any device, left as it is.
        output: Directory or ``.tar`` to write.
        preprocessing: Input size and resize filter that it was trained with.
        method: Name of the method that trained it.
        run_id: Of the run that made it.
        config: Resolved configuration of that run; values that JSON knows.
        parent_version: Model version it started from; if empty, that of the bundle which the
            embedder was built from, if it was.
        summary_files: Further files by their path in the bundle.
        data: For the model card: what it was trained on; see ``describe_crops``.
        metrics: For the model card: label-free figures by name.
        exported: What ``export_embedder`` gave for it, to save exporting it again.
        attachments: What goes along; see ``adapt.export.attachments``.
        overwrite: Whether a bundle already there may be replaced.
        graph: The same network's trace at that size, to save tracing it again.

    Returns:
        The bundle, its digests verified.

    Raises:
        InvalidArgument: ``config`` is not JSON, a file name is taken, or the network cannot be
            exported.
        FailedPrecondition: The exported encoder differs from the network.
        AlreadyExists: There is something at ``output``.
    """
    extra = dict(summary_files or {})
    if WARM_START_FILE in extra:
        raise InvalidArgument(
            f"{WARM_START_FILE} is the name of the weights: name that file otherwise",
            field="summary_files",
        )
    parent_version = parent_version or embedder.init_report.parent_version
    provenance = bundle_pb2.Provenance(
        method=method,
        parent_version=parent_version,
        run_id=run_id,
        config=_struct(config),
    )
    exported = exported or export_embedder(embedder, preprocessing, graph=graph)
    attachments = attachments or Attachments()
    extra[WARM_START_FILE] = save_warm_start(embedder)
    return write_bundle(
        output,
        encoder=exported.encoder,
        preprocessing=preprocessing,
        provenance=provenance,
        parity=exported.parity,
        extra_files=extra,
        attachments=attachments,
        model_card=adapted_card(
            embedder,
            preprocessing=preprocessing,
            method=method,
            run_id=run_id,
            config=config,
            parent_version=parent_version,
            data=data,
            parity=exported.parity,
            attachments=attachments,
            metrics=metrics or {},
        ),
        overwrite=overwrite,
    )


def _struct(config: Mapping[str, Any]) -> struct_pb2.Struct:
    try:
        return json_format.ParseDict(dict(config), struct_pb2.Struct())
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise InvalidArgument(
            f"config is not JSON ({error}): give strings, finite numbers, booleans, lists and "
            "mappings",
            field="config",
        ) from error
