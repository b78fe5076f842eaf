"""Training on the night's crops, from the live encoder on."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from resight.bundle import Bundle
from resight.errors import InvalidArgument

if TYPE_CHECKING:
    from adapt.training.config import RunConfig
    from adapt.training.run import RunOutcome

__all__ = ["learn", "night_config", "unused_paths"]

# What the weights of the live encoder decide, and what a night may change.
_NETWORK = ("backbone", "pooling", "neck")


def night_config(
    live: Bundle,
    path: Path,
    *,
    file: Path | None,
    assignments: Sequence[str],
    options: Mapping[str, Any],
) -> RunConfig:
    """The settings of a run that starts from ``live``, which lies at ``path``.

    Network and input size are the live encoder's; the input size may be set to another. Where no
    preset is named and ``adapt run`` would take ``fast``, it is ``night``.

    Raises:
        InvalidArgument: A setting is unknown or not allowed, or names another network.
        NotFound: The bundle holds nothing to train on (it was imported).
    """
    from adapt.backbones.warm_start import WARM_START_FILE
    from adapt.training.resolve import (
        default_preset,
        parse_assignments,
        read_config_file,
        resolve,
    )

    live.file(WARM_START_FILE)
    told = json_format.MessageToDict(live.manifest.provenance.config)
    network = {key: told[key] for key in _NETWORK if told.get(key) is not None}
    given = {
        **(read_config_file(file) if file else {}),
        **parse_assignments(assignments),
        **{key: value for key, value in options.items() if value is not None},
    }
    for key, value in network.items():
        if given.get(key, value) != value:
            raise InvalidArgument(
                f"{key}={given[key]} is not the live encoder's, {value}: a night goes on from its"
                " weights; leave the setting out",
                field=key,
            )
    size = {
        "height": live.preprocessing.height,
        "width": live.preprocessing.width,
        "resize_filter": live.preprocessing.resize_filter,
    }
    inherited = {key: value for key, value in {**size, **network}.items() if key not in given}
    if "preset" not in given and default_preset(given) == "fast":
        inherited["preset"] = "night"
    named = {key: value for key, value in options.items() if value is not None}
    return resolve(
        file=file,
        assignments=assignments,
        options={**inherited, **named, "init": str(path)},
    )


def learn(
    manifest: Path, output: Path, config: RunConfig, *, should_stop: Callable[[float], bool]
) -> RunOutcome:
    """Adapts to the crops of ``manifest``; ``should_stop`` is told how long each epoch took."""
    from adapt.training.run import adapt

    return adapt(manifest, output, config, should_stop=should_stop)


def unused_paths(skipped: Path) -> frozenset[Path]:
    """The crops that a run did not use, from its ``skipped.csv``."""
    with skipped.open(newline="", encoding="utf-8") as stream:
        return frozenset(Path(row["path"]) for row in csv.DictReader(stream))
