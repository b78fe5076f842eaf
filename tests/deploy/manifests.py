"""The chart as helm renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "resight"
CASES = ("single", "production", "gpu")
RELEASE = "site"

Manifest = dict[str, Any]


def tool(name: str) -> Path:
    """A program or file of `make deploy-tools`; tests skip without it."""
    unpacked = ROOT / ".deploy-tools" / "bin" / name
    found = str(unpacked) if unpacked.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: run `make deploy-tools`")
    return Path(found)


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Of no cluster, and without anybody's settings of helm."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [tool("helm"), *arguments], capture_output=True, text=True, check=False, env=environment
    )


def values_of(case: str) -> Path:
    """The file of values of a case."""
    return CHART / "ci" / f"{case}-values.yaml"


def rendered(case: str, *settings: str) -> list[Manifest]:
    """What a release of the chart consists of, with ``--set`` arguments."""
    return [dict(each) for each in _rendered(case, settings)]


@cache
def _rendered(case: str, settings: tuple[str, ...]) -> tuple[Manifest, ...]:
    options = [part for setting in settings for part in ("--set", setting)]
    done = helm("template", RELEASE, str(CHART), "--values", str(values_of(case)), *options)
    assert done.returncode == 0, done.stderr
    return tuple(each for each in yaml.safe_load_all(done.stdout) if each)


def of_kind(manifests: list[Manifest], kind: str) -> Iterator[Manifest]:
    """Those of one kind."""
    return (each for each in manifests if each["kind"] == kind)


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """The only one of a kind."""
    (found,) = of_kind(manifests, kind)
    return found


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The pods that a release runs, by kind and name of what makes them."""
    for each in manifests:
        template = each.get("spec", {})
        if each["kind"] == "CronJob":
            template = template["jobTemplate"]["spec"]
        if each["kind"] in ("Deployment", "Job", "CronJob"):
            yield f"{each['kind']}/{each['metadata']['name']}", template["template"]["spec"]
