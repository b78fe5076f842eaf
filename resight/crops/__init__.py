"""Crops on disk and in bytes: sources, limits, and the one path from bytes to pixels."""

from resight.crops.crop import CropRef, SkippedCrop, SourceReport
from resight.crops.decode import check_header, decode, prepare, resize
from resight.crops.faults import Fault, fault_of
from resight.crops.limits import DEFAULT_LIMITS, ImageLimits
from resight.crops.preprocessing import RESIZE_FILTERS, Preprocessing, ResizeFilter
from resight.crops.source import Check, CropSource, open_source, read_crop

__all__ = [
    "DEFAULT_LIMITS",
    "RESIZE_FILTERS",
    "Check",
    "CropRef",
    "CropSource",
    "Fault",
    "ImageLimits",
    "Preprocessing",
    "ResizeFilter",
    "SkippedCrop",
    "SourceReport",
    "check_header",
    "decode",
    "fault_of",
    "open_source",
    "prepare",
    "read_crop",
    "resize",
]
