"""Settings that were given and change nothing beside the others; those of a preset are not meant.

What contradicts is refused by ``RunConfig``; here is what a settings file for several runs may well
hold, and what its reader should know to be idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from pydantic import BaseModel

from adapt.training.config import RunConfig

__all__ = ["given_keys", "without_effect"]


class _Idle(NamedTuple):
    """``keys``, dotted names or patterns, have no effect where ``when`` holds."""

    keys: str
    when: Callable[[RunConfig], bool]
    why: str


def _is_infomap(config: RunConfig) -> bool:
    return config.method == "calr" and config.calr.clustering == "infomap"


# The first that fits a key speaks.
_TABLE = (
    _Idle(
        "epochs iterations passes min_iterations max_iterations camera_aware flip pad erasing"
        " erasing_fill optimiser lr weight_decay schedule step_epochs step_factor warmup_iterations"
        " warmup_epochs temperature momentum features distance eps k1 k2 k1_intra k1_inter k2_intra"
        " k2_inter min_samples camera_centering neighbours approximate_above neighbour_recall"
        " freeze_bn ema teacher.* precision compile extraction extraction_batch prefetch",
        lambda c: c.method == "bn-stats",
        "with method=bn-stats, which learns not",
    ),
    _Idle(
        "passes min_iterations max_iterations",
        lambda c: c.iterations is not None,
        "beside iterations",
    ),
    _Idle("camera_aware", lambda c: c.ignore_cameras, "with ignore_cameras"),
    _Idle("erasing_fill", lambda c: not c.erasing, "with erasing=0"),
    _Idle("step_epochs step_factor", lambda c: c.schedule != "step", "without schedule=step"),
    _Idle("momentum", lambda c: c.method == "pplr", "with method=pplr, which has no memory"),
    _Idle(
        "temperature pplr.hard_negatives",
        lambda c: c.method == "pplr" and not c.pplr.lambda_camera,
        "with pplr.lambda_camera=0",
    ),
    _Idle(
        "distance eps k1 k2 k1_intra k1_inter k2_intra k2_inter min_samples neighbours"
        " approximate_above neighbour_recall",
        _is_infomap,
        "with calr.clustering=infomap",
    ),
    _Idle(
        "k1 k2",
        lambda c: c.distance == "ca-jaccard",
        "with distance=ca-jaccard, which has k1_intra, k1_inter, k2_intra and k2_inter",
    ),
    _Idle(
        "k1_intra k1_inter k2_intra k2_inter",
        lambda c: c.distance != "ca-jaccard",
        "without distance=ca-jaccard",
    ),
    _Idle("approximate_above", lambda c: c.neighbours != "auto", "without neighbours=auto"),
    _Idle("neighbour_recall", lambda c: c.neighbours == "exact", "with neighbours=exact"),
    _Idle("track_gap_seconds", lambda c: c.tracklets == "off", "with tracklets=off"),
    _Idle("apart_seconds", lambda c: c.apart_cameras == "none", "with apart_cameras=none"),
    _Idle(
        "bn_group",
        lambda c: (
            c.freeze_bn
            and not c.bn_reestimate
            and not (c.method == "pplr" and c.pplr.parts)
            and bool(c.bn_group)
        ),
        "with freeze_bn",
    ),
    _Idle("teacher.*", lambda c: not c.teacher.weight, "with teacher.weight=0"),
    _Idle("spcl.eps_gap", lambda c: not c.spcl.self_paced, "with spcl.self_paced=false"),
    _Idle(
        "cap.inter_epoch cap.hard_negatives",
        lambda c: not c.cap.inter_weight,
        "with cap.inter_weight=0",
    ),
    _Idle(
        "pplr.agreement_neighbours pplr.aals pplr.aals_epoch pplr.smoothing pplr.pglr pplr.beta",
        lambda c: not c.pplr.parts,
        "with pplr.parts=0",
    ),
    _Idle("pplr.aals_epoch", lambda c: not c.pplr.aals, "with pplr.aals=false"),
    _Idle(
        "pplr.smoothing",
        lambda c: c.pplr.aals and not c.pplr.aals_epoch,
        "with pplr.aals from the first epoch on",
    ),
    _Idle("pplr.beta", lambda c: not c.pplr.pglr, "with pplr.pglr=false"),
    _Idle(
        "pplr.agreement_neighbours",
        lambda c: not (c.pplr.aals or c.pplr.pglr),
        "with pplr.aals=false and pplr.pglr=false",
    ),
    _Idle("calr.pivot calr.pace", lambda c: not c.calr.refine, "with calr.refine=false"),
    _Idle(
        "calr.neighbours calr.min_cosine",
        lambda c: not (c.calr.refine or _is_infomap(c)),
        "with calr.refine=false and calr.clustering=dbscan",
    ),
    _Idle("calr.min_size", lambda c: not _is_infomap(c), "without calr.clustering=infomap"),
    _Idle(
        "calr.intra_iterations calr.intra_p calr.intra_k",
        lambda c: not c.calr.intra_epochs,
        "with calr.intra_epochs=0",
    ),
    _Idle(
        "calr.entropy_epoch calr.entropy_floor",
        lambda c: not c.calr.entropy_weights,
        "with calr.entropy_weights=false",
    ),
    _Idle(
        "calr.camera_weight calr.camera_loss",
        lambda c: not c.calr.camera_epochs,
        "with calr.camera_epochs=0",
    ),
    _Idle(
        "export.min_overlap export.min_correlation",
        lambda c: not (c.export.fp16 or c.export.int8),
        "with export.fp16=false and export.int8=false",
    ),
    _Idle(
        "export.calibration_form export.prior export.simultaneous export.views_overlap",
        lambda c: c.export.calibration == "off" or not c.export.crops,
        "without a calibration (export.calibration, export.crops)",
    ),
    _Idle(
        "export.simultaneous export.views_overlap",
        lambda c: c.export.calibration == "clusters",
        "with export.calibration=clusters",
    ),
)


def without_effect(config: RunConfig, iterations: int) -> Iterator[str]:
    """A warning for each setting given that has no effect.

    Args:
        config: As given: its ``model_fields_set``, and those of its sections, are what was.
        iterations: Steps an epoch, for which of two warm-ups is the longer.
    """
    for key in given_keys(config):
        why = next((idle.why for idle in _TABLE if _speaks(idle, key, config)), None)
        why = why or _shorter_warmup(key, config, iterations)
        if why is not None:
            yield f"{key} has no effect {why}"


def given_keys(section: BaseModel, prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings given, in the order of their definition."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if name not in section.model_fields_set:
            continue
        if isinstance(value, BaseModel):
            yield from given_keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _speaks(idle: _Idle, key: str, config: RunConfig) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in idle.keys.split()) and idle.when(config)


def _shorter_warmup(key: str, config: RunConfig, iterations: int) -> str | None:
    lengths = {
        "warmup_iterations": config.warmup_iterations,
        "warmup_epochs": config.warmup_epochs * iterations,
    }
    if not lengths.get(key):
        return None
    other = next(name for name in lengths if name != key)
    if lengths[other] <= lengths[key]:
        return None
    return f"beside {other}={getattr(config, other)}, which is longer: set it to 0"
