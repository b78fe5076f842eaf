"""A night's figures for Prometheus: a file for the node exporter, or a push.

Text exposition format 0.0.4. The file is written under another name and renamed, because the
textfile collector may read at any moment. A push replaces the group ``job``, ``gallery``: the
metrics of the last night alone, whatever earlier versions pushed.
"""

from __future__ import annotations

import math
import os
import tempfile
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from resight.errors import InvalidArgument

__all__ = ["Metric", "checked_gateway", "exposition", "push", "write"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
JOB = "resight_night"
_PUSH_SECONDS = 10.0


@dataclass(frozen=True)
class Metric:
    """A gauge and its samples; each sample's labels are told beside its value."""

    name: str
    help: str
    samples: tuple[tuple[Mapping[str, str], float], ...]


def exposition(metrics: Iterable[Metric], *, gallery: str) -> str:
    """The text; every sample carries the gallery, and values that are not finite are left out."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
        for labels, value in metric.samples:
            if math.isfinite(value):
                pairs = {"gallery": gallery, **labels}
                text = ",".join(f'{name}="{_escaped(told)}"' for name, told in pairs.items())
                lines.append(f"{metric.name}{{{text}}} {float(value)!r}")
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Write the file at once; readable by all, as the node exporter runs as another user.

    Raises:
        OSError: The folder cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def push(gateway: str, text: str, *, gallery: str) -> None:
    """Replace the gallery's group in a Pushgateway.

    Raises:
        OSError: It cannot be reached or refuses.
    """
    url = f"{checked_gateway(gateway)}/metrics/job/{JOB}/gallery/{quote(gallery, safe='')}"
    request = urllib.request.Request(  # noqa: S310 -- http or https, see checked_gateway
        url, data=text.encode(), method="PUT", headers={"Content-Type": CONTENT_TYPE}
    )
    with urllib.request.urlopen(request, timeout=_PUSH_SECONDS):  # noqa: S310
        pass


def checked_gateway(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        InvalidArgument: It is no http or https address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidArgument(
            f"--push-gateway {url!r} is no address such as http://pushgateway:9091",
            field="push-gateway",
        )
    return url.rstrip("/")


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
