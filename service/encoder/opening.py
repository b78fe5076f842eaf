"""The encoder that the settings name, and the policy of a pipeline in front of one."""

from __future__ import annotations

from time import perf_counter

from resight.bundle import Bundle, open_bundle
from resight.bundle.calibration import Calibration, load_calibration
from resight.crops import ImageLimits
from resight.errors import InvalidArgument
from service.encoder.cpus import usable_cpus
from service.encoder.onnx import OnnxEncoder
from service.encoder.session import CPU, CUDA
from service.pipeline.batcher import BatchPolicy
from service.pipeline.pipeline import PipelinePolicy
from service.settings import EncoderSettings, ServiceSettings
from service.telemetry import MODEL_LOAD_DURATION

__all__ = ["encoder_of", "open_encoder", "pipeline_policy"]

_PROVIDERS = {"cpu": CPU, "cuda": CUDA}


def open_encoder(settings: ServiceSettings) -> tuple[OnnxEncoder, Calibration | None]:
    """The encoder of the bundle that the settings name, and its calibration where it has one.

    Raises:
        InvalidArgument: no bundle is named.
        ResightError: it cannot be used.
    """
    begun = perf_counter()
    bundle = _open_bundle(settings)
    calibration = load_calibration(bundle)
    encoder = encoder_of(bundle, settings.encoder)
    encoder.show()
    MODEL_LOAD_DURATION.set(perf_counter() - begun)
    return encoder, calibration


def encoder_of(bundle: Bundle, settings: EncoderSettings) -> OnnxEncoder:
    """The encoder of a verified bundle.

    Raises:
        FailedPrecondition: the provider that is set cannot be used, and nothing may take its place.
    """
    return OnnxEncoder(
        bundle,
        threads=settings.threads,
        provider=_PROVIDERS[settings.provider],
        fallback=settings.fallback == "cpu",
    )


def _open_bundle(settings: ServiceSettings) -> Bundle:
    if settings.bundle is None:
        raise InvalidArgument(
            "bundle is not set; name the encoder's folder or .tar with --bundle or "
            "RESIGHT_BUNDLE (`resight bundle import` makes one)",
            field="bundle",
        )
    return open_bundle(settings.bundle)


def pipeline_policy(settings: ServiceSettings) -> PipelinePolicy:
    """How images come to an encoder, of this bundle or another."""
    limits = settings.limits
    return PipelinePolicy(
        batch=BatchPolicy(
            max_batch=settings.batcher.max_batch, bulk_seconds=settings.batcher.bulk_seconds
        ),
        decode_threads=settings.encoder.decode_threads or usable_cpus(),
        max_images=settings.batcher.max_queue,
        max_bytes=settings.batcher.max_queue_bytes,
        limits=ImageLimits(
            max_bytes=limits.max_image_bytes,
            max_pixels=limits.max_pixels,
            min_side=limits.min_side,
        ),
    )
