"""Making a bundle of somebody's own encoder, and proving that it is the same encoder."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resight.bundle.bundle import Bundle
from resight.bundle.golden import golden_inputs
from resight.bundle.graph_session import GraphSession, open_session
from resight.bundle.model_card import ModelCard, render_model_card
from resight.bundle.wrap import ChannelOrder, Layout, wrap_encoder
from resight.bundle.writer import write_bundle
from resight.crops.preprocessing import Preprocessing
from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["InputContract", "import_encoder"]

_BATCHES = (1, 2, 7)
_MIN_COSINE = 0.9999
_SEED = 1


@dataclass(frozen=True)
class InputContract:
    """What the encoder expects; see ``resight.bundle.wrap.wrap_encoder``."""

    layout: Layout
    height: int
    width: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: ChannelOrder = "RGB"
    output_name: str | None = None


def import_encoder(
    model: bytes,
    contract: InputContract,
    *,
    output: Path,
    preprocessing: Preprocessing,
    name: str = "imported encoder",
    model_card: str | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Wraps an encoder, compares it with the original at batch 1, 2 and 7, and writes a bundle.

    Args:
        model: The ONNX file's bytes.
        contract: What the encoder expects.
        output: Folder to make, or a ``.tar``.
        preprocessing: Input size and the resize filter the encoder was trained with.
        name: Title of the card that is written when none is given.
        model_card: Markdown of the encoder's own card.
        overwrite: Whether a bundle already at ``output`` may be replaced.

    Raises:
        InvalidArgument: The graph cannot be wrapped, or the wrapped graph answers differently.
        AlreadyExists: Something is at ``output``.
    """
    arguments = asdict(contract)
    encoder, parity = _wrap_and_compare(model, contract, preprocessing)
    provenance = bundle_pb2.Provenance(method="import")
    provenance.config.update(arguments | {"mean": list(contract.mean), "std": list(contract.std)})
    provenance.config.update({"source_sha256": hashlib.sha256(model).hexdigest()})
    card = ModelCard(
        name=name,
        height=preprocessing.height,
        width=preprocessing.width,
        method="Imported from an ONNX file made elsewhere; only its input and output were wrapped.",
    )
    return write_bundle(
        output,
        encoder=encoder,
        preprocessing=preprocessing,
        provenance=provenance,
        model_card=render_model_card(card) if model_card is None else model_card,
        parity=parity,
        overwrite=overwrite,
    )


def _wrap_and_compare(
    model: bytes, contract: InputContract, preprocessing: Preprocessing
) -> tuple[bytes, list[bundle_pb2.Parity]]:
    encoder = wrap_encoder(model, **asdict(contract))
    try:
        return encoder, _compare(model, encoder, contract, preprocessing)
    except InvalidArgument:
        if not isinstance(open_session(model).get_inputs()[0].shape[0], int):
            raise
    # The graph fixes its batch size; the usual place for that, besides the input, is a Reshape.
    encoder = wrap_encoder(model, **asdict(contract), fixed_reshapes=True)
    return encoder, _compare(model, encoder, contract, preprocessing)


def _compare(
    model: bytes, encoder: bytes, contract: InputContract, preprocessing: Preprocessing
) -> list[bundle_pb2.Parity]:
    session = GraphSession(encoder, preprocessing)
    images = golden_inputs(_SEED, max(_BATCHES), preprocessing)
    expected = _original(model, images, contract)
    parity = []
    for batch in _BATCHES:
        found = session.embed(images[:batch])
        cosine = float(np.min(np.sum(found * expected[:batch], axis=1)))
        if not cosine >= _MIN_COSINE:
            raise InvalidArgument(
                f"model: at batch {batch} the wrapped graph answers differently (cosine"
                f" {cosine:.6f}); export it again with a dynamic batch and opset 17 or newer",
                field="model",
            )
        difference = float(np.max(np.abs(found - expected[:batch])))
        parity.append(
            bundle_pb2.Parity(batch_size=batch, min_cosine=cosine, max_abs_difference=difference)
        )
    return parity


def _original(
    model: bytes, images: NDArray[np.uint8], contract: InputContract
) -> NDArray[np.float32]:
    """The untouched graph behind normalisation in numpy, batch by batch as it declares."""
    session = open_session(model)
    source = session.get_inputs()[0]
    step = source.shape[0] if isinstance(source.shape[0], int) else 1
    output = contract.output_name or session.get_outputs()[0].name
    pixels = images[..., ::-1] if contract.channel_order == "BGR" else images
    normalised = (pixels * contract.scale - np.array(contract.mean)) / np.array(contract.std)
    if contract.layout == "NCHW":
        normalised = normalised.transpose(0, 3, 1, 2)
    kind = np.float16 if source.type == "tensor(float16)" else np.float32
    padded = np.concatenate([normalised, np.repeat(normalised[:1], -len(images) % step, axis=0)])
    chunks = [
        session.run([output], {source.name: padded[i : i + step].astype(kind)})[0]
        for i in range(0, len(padded), step)
    ]
    features = np.concatenate(chunks).reshape(len(padded), -1)[: len(images)].astype(np.float32)
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    unit: NDArray[np.float32] = features / np.maximum(norms, 1e-12)
    return unit
