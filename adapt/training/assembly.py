"""What a run is made of: network, method, workload, engine."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import nn

from adapt.backbones.build import build_embedder
from adapt.backbones.embedder import Embedder
from adapt.data.augmentation import Normalisation
from adapt.export.graph import EncoderGraph
from adapt.methods.calr import Calr
from adapt.methods.method import Features
from adapt.methods.registry import create_method
from adapt.report.summary import RunSummary
from adapt.training.batch_norm import group_batch_norms
from adapt.training.camera_stage import CameraStage, ExtractorOf
from adapt.training.checkpoint import Identity, crop_set_digest, network_digest
from adapt.training.config import RunConfig
from adapt.training.crop_set import CropSet
from adapt.training.directory import RunDirectory
from adapt.training.distributed import current
from adapt.training.engine import Engine, Workload
from adapt.training.extraction import Extractor, PartHead, choose_extractor, onnx_session
from adapt.training.schedule import iterations_per_epoch
from adapt.training.source_set import SourceSet
from resight.errors import InvalidArgument

__all__ = ["Assembly"]


class Assembly:
    """The parts of a run over ``crops``.

    Attributes:
        embedder: The initial network, on the device.
        method: The method.
        work: What the engine works on.
        graph: The network's trace, where features are extracted through one; it serves the export
            too.
    """

    def __init__(self, config: RunConfig, crops: CropSet, device: torch.device) -> None:
        self.embedder = _build(config, device)
        self.method = create_method(
            config, crops.cameras.codes, device, crops.constraints.constraints
        )
        self.graph: EncoderGraph | None = None
        self._config = config
        self._crops = crops
        self._extractor_of: ExtractorOf | None = None
        normalise = Normalisation(self.embedder.mean, self.embedder.std, device=device)
        extractor: Extractor = _no_extractor
        if self.method.learns and config.epochs:
            session = onnx_session(self.embedder, config, device, maps=self.method.has_parts)
            self.graph = None if session is None else session.graph
            self._extractor_of = partial(
                choose_extractor, session, config, normalise=normalise, device=device
            )
            extractor = self._extractor_of(crops.cache)
        self.work = Workload(
            cache=crops.cache,
            cameras=crops.cameras.codes if config.camera_aware else None,
            normalise=normalise,
            extractor=extractor,
            iterations=iterations_per_epoch(config, len(crops.cache)),
            device=device,
        )

    def require_source_taken(self) -> None:
        """Refuses a labelled source set that nothing would be learnt from.

        Raises:
            InvalidArgument: The method takes none, or there is no epoch.
        """
        if not self.method.takes_source or not self._config.epochs:
            raise InvalidArgument(
                f"--source: method {self.method.name} with {self._config.epochs} epochs does not"
                " learn from labelled crops; use method=spcl with at least one epoch, or leave"
                " --source out",
                field="source",
            )

    def add_source(self, source: SourceSet) -> None:
        """Has the engine learn from ``source`` too."""
        if self._extractor_of is None:
            raise ValueError("require_source_taken comes first")
        extractor = self._extractor_of(source.cache)
        self.work = replace(self.work, source=source, source_extractor=extractor)

    def camera_stage(self, directory: RunDirectory, summary: RunSummary) -> CameraStage | None:
        """CALR's first stage, which starts from the encoder as it is now.

        None where nothing would look at its labels.
        """
        if not isinstance(self.method, Calr) or self._extractor_of is None:
            return None
        if not self._config.calr.refine:
            return None
        return CameraStage(
            self.embedder,
            self._config,
            self._crops,
            self.work,
            self._extractor_of,
            folder=directory.local_clusters,
            identity=self._identity(),
            summary=summary,
        )

    def engine(self, directory: RunDirectory, summary: RunSummary) -> Engine:
        """The engine; the embedder's batch norms are grouped from here on."""
        identity = self._identity()
        both = self.work.source is not None
        group_batch_norms(self.embedder, self._config.bn_group, domains=both)
        return Engine(
            self.embedder,
            self.method,
            self._config,
            self.work,
            checkpoint=directory.checkpoint,
            identity=identity,
            summary=summary,
        )

    def _identity(self) -> Identity:
        crops, source = self._crops, self.work.source
        used = crop_set_digest(crops.cache.crops, crops.preprocessing)
        if source is not None:
            used = f"{used}+{source.digest(crops.preprocessing)}"
        identity = Identity(
            config=self._config.model_dump(mode="json"),
            network=network_digest(self.embedder),
            crops=used,
        )
        current().require_same(json.dumps(asdict(identity), sort_keys=True))
        return identity


def _build(config: RunConfig, device: torch.device) -> Embedder:
    embedder = build_embedder(
        config.backbone,
        pooling=config.pooling,
        neck=config.neck,
        init=config.init,
        image_size=(config.height, config.width),
        seed=config.seed,
    ).to(device)
    if config.channels_last:
        embedder = embedder.to(memory_format=torch.channels_last)
    return embedder


def _no_extractor(model: nn.Module, parts: PartHead | None = None) -> Features:  # noqa: ARG001
    raise ValueError(f"features of {type(model).__name__} are not wanted by this method")
