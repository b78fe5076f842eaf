"""A container engine, when the machine has one: podman or docker, with the same command line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import DEPLOY, ROOT

# As the compose file and the chart run it.
HARDENED = (
    "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=4096",
    "--tmpfs=/tmp:mode=1777,size=512m",
)  # fmt: skip
# For a busy machine: nothing waits so long, unless it will never come.
PATIENCE = 300


class Engine:
    """Runs the program's commands."""

    def __init__(self, program: str) -> None:
        self.program = program

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments],
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
            capture_output=True, text=True, check=False, timeout=1500,
        )  # fmt: skip

    def done(self, *arguments: str | Path) -> str:
        """What a command prints that must not fail."""
        done = self(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout.strip()

    def built(self, target: str) -> str:
        """An image of the container file; ``RESIGHT_IMAGE_BUILD`` holds more options."""
        name = f"localhost/resight/{target}:checked"
        # podman's own format knows no health check.
        form = ["--format=docker"] if Path(self.program).name == "podman" else []
        more = shlex.split(os.environ.get("RESIGHT_IMAGE_BUILD", ""))
        file = DEPLOY / "container" / "Containerfile"
        self.done("build", *form, *more, "--file", file, "--target", target, "--tag", name, ROOT)
        return name

    @contextmanager
    def volume(self) -> Iterator[str]:
        """A named volume; the first container gives it the image's owner and rights."""
        name = self.done("volume", "create")
        try:
            yield name
        finally:
            self("volume", "rm", "--force", name)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Container]:
        """``run --detach …``, hardened; removed in the end."""
        container = Container(self, self.done("run", "--detach", *HARDENED, *arguments))
        try:
            yield container
        finally:
            self("rm", "--force", container.name)


class Container:
    """One that was started."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine, self.name = engine, name

    def exec(self, *command: str) -> str:
        """What a command in it prints that must not fail."""
        return self.engine.done("exec", self.name, *command)

    def state(self) -> dict[str, Any]:
        """As the engine tells it."""
        told: dict[str, Any] = json.loads(self.engine.done("inspect", self.name))[0]["State"]
        return told

    def log(self) -> str:
        """Both streams, standard output first."""
        done = self.engine("logs", self.name)
        return done.stdout + done.stderr

    def until(self, *command: str) -> None:
        """Wait for a command in it to succeed."""
        end = time.monotonic() + PATIENCE
        while self.engine("exec", self.name, *command).returncode != 0:
            assert self.state()["Running"], self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.2)

    def stopped(self) -> int:
        """The exit code after SIGTERM, and a long time until SIGKILL."""
        self.engine.done("stop", f"--time={PATIENCE}", self.name)
        code: int = self.state()["ExitCode"]
        return code


def found_engine() -> Engine:
    """``RESIGHT_ENGINE``, or the first that answers; tests skip without one."""
    named = os.environ.get("RESIGHT_ENGINE")
    for name in (named,) if named else ("podman", "docker"):
        program = shutil.which(name)
        if program is not None and Engine(program)("info").returncode == 0:
            return Engine(program)
    pytest.skip(f"no container engine: {named or 'neither podman nor docker'} answers")
