"""Building an engine. Precision is the graph's: networks are strongly typed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from resight.bundle.attachments import Attachments
from resight.engines.backend import Backend, parse_capability
from resight.engines.graph import with_early_cast
from resight.errors import FailedPrecondition, InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["MAX_BATCH", "BatchProfile", "Precision", "build_engine", "engine_path"]

Precision = Literal["fp32", "fp16"]
MAX_BATCH = 1024


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes an engine takes.

    Attributes:
        smallest: Fewest crops of a run.
        best: The number it is tuned for.
        largest: Most crops of a run; the memory it needs grows with it.
    """

    smallest: int = 1
    best: int = 8
    largest: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.best <= self.largest <= MAX_BATCH:
            raise InvalidArgument(
                f"profile: min {self.smallest}, opt {self.best}, max {self.largest}; they must not"
                f" fall and lie in 1 to {MAX_BATCH}",
                field="profile",
            )


def engine_path(backend: Backend, capability: tuple[int, int], precision: Precision) -> str:
    """``engines/sm89-rtx1.7.1.116-fp16.plan``."""
    major, minor = capability
    return f"engines/sm{major}{minor}-{backend.label}-{precision}.plan"


def build_engine(
    graph: bytes,
    *,
    backend: Backend,
    compute_capability: str,
    precision: Precision,
    profile: BatchProfile,
    present: str | None = None,
) -> Attachments:
    """Builds an engine of a bundle's graph, ready to be attached.

    Args:
        graph: ``encoder.onnx`` for fp32, ``encoder.fp16.onnx`` for fp16.
        backend: The library.
        compute_capability: Of the GPUs that are to run it, such as ``8.9``.
        precision: What the graph is typed in; a graph of another precision is refused.
        profile: Batch sizes.
        present: Compute capability of this machine's GPU, if it has one.

    Raises:
        InvalidArgument: The library does not build for that GPU from here, cannot express the
            graph, or the graph is of another precision.
        FailedPrecondition: The build failed.
    """
    capability = parse_capability(compute_capability)
    trt, logger = backend.module, backend.logger()
    builder = _made(trt.Builder(logger), logger, "no builder")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(with_early_cast(graph)):
        faults = [str(parser.get_error(index).desc()) for index in range(parser.num_errors)]
        raise InvalidArgument(
            f"encoder: {backend.name} {backend.version} cannot express the graph:"
            f" {'; '.join(faults or logger.errors)}",
            field="encoder",
        )
    _check_precision(trt, network, precision)
    config = builder.create_builder_config()
    _set_target(backend, config, capability, compute_capability, present)
    # It would round fp32 products to ten bits, on some cards and not on others.
    config.clear_flag(trt.BuilderFlag.TF32)
    shape = tuple(network.get_input(0).shape)[1:]
    optimization = builder.create_optimization_profile()
    sizes = (profile.smallest, profile.best, profile.largest)
    optimization.set_shape("images", *((size, *shape) for size in sizes))
    config.add_optimization_profile(optimization)
    plan = _made(builder.build_serialized_network(network, config), logger, "the build failed")
    path = engine_path(backend, capability, precision)
    described = bundle_pb2.Engine(
        path=path,
        backend=backend.name,
        backend_version=backend.version,
        compute_capability=compute_capability,
        precision=precision,
        min_batch=profile.smallest,
        opt_batch=profile.best,
        max_batch=profile.largest,
        graph_sha256=hashlib.sha256(graph).hexdigest(),
    )
    return Attachments(files={path: bytes(plan)}, engines=[described])


def _check_precision(trt: Any, network: Any, precision: Precision) -> None:
    """TensorRT once built fp32 engines when asked for fp16, silently: look at the network."""
    kinds = {trt.LayerType.CONVOLUTION, trt.LayerType.MATRIX_MULTIPLY}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    found = {layer.get_output(0).dtype for layer in layers if layer.type in kinds}
    wanted = trt.DataType.HALF if precision == "fp16" else trt.DataType.FLOAT
    if found != {wanted}:
        names = ", ".join(sorted(str(kind) for kind in found)) or "nothing"
        raise InvalidArgument(
            f"precision: {precision} was asked for, and the graph's convolutions and products give"
            f" {names}; build from a graph of that precision",
            field="precision",
        )


def _set_target(
    backend: Backend, config: Any, capability: tuple[int, int], text: str, present: str | None
) -> None:
    if backend.name == "tensorrt":
        if text != present:
            raise InvalidArgument(
                "compute_capability: tensorrt builds for the GPU of its own machine, which"
                f" {f'has {present}' if present else 'has none'}, not for {text}; build on such a"
                " machine, or use tensorrt_rtx",
                field="compute_capability",
            )
        return
    known = backend.module.ComputeCapability
    target = known.__members__.get(f"SM{capability[0]}{capability[1]}")
    if target is None:
        names = sorted(name for name in known.__members__ if name.startswith("SM"))
        raise InvalidArgument(
            f"compute_capability: tensorrt_rtx {backend.version} does not build for {text}; it"
            f" knows {', '.join(f'{name[2:-1]}.{name[-1]}' for name in names)}",
            field="compute_capability",
        )
    config.num_compute_capabilities = 1
    config.set_compute_capability(target, 0)


def _made(result: Any, logger: Any, what: str) -> Any:
    if result is None:
        raise FailedPrecondition(
            f"engine: {what}: {'; '.join(logger.errors) or 'the library says no reason'}",
            field="engine",
            reason="ENGINE_BUILD",
        )
    return result
