"""The bundle: a complete, verifiable encoder, and the contract between the two halves."""

from resight.bundle.archive import pack
from resight.bundle.bundle import Bundle, preprocessing_from_proto, preprocessing_to_proto
from resight.bundle.golden import check_golden, golden_inputs
from resight.bundle.graph_session import GraphSession
from resight.bundle.importing import InputContract, import_encoder
from resight.bundle.layout import model_version
from resight.bundle.model_card import ModelCard, render_model_card
from resight.bundle.reader import open_bundle, verify_golden
from resight.bundle.wrap import ChannelOrder, Layout, wrap_encoder
from resight.bundle.writer import write_bundle

__all__ = [
    "Bundle",
    "ChannelOrder",
    "GraphSession",
    "InputContract",
    "Layout",
    "ModelCard",
    "check_golden",
    "golden_inputs",
    "import_encoder",
    "model_version",
    "open_bundle",
    "pack",
    "preprocessing_from_proto",
    "preprocessing_to_proto",
    "render_model_card",
    "verify_golden",
    "wrap_encoder",
    "write_bundle",
]
