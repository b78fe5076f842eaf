"""The service's image, built by a container engine and run as the deployment files run it."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.catalog.schema import head_revision
from tests.deploy.engine import HARDENED, Engine, found_engine
from tests.deploy.manifests import DEPLOY
from tests.e2e.conftest import jpeg, tiny_bundle_at

pytestmark = [
    pytest.mark.skipif("RESIGHT_IMAGE_CHECK" not in os.environ, reason="minutes: make image-check"),
    pytest.mark.timeout(1800),
]

LOCK = DEPLOY / "container" / "locks" / "service-cpu.txt"
READY = ("python", "-m", "service.healthcheck", "--ready")
CONTENT = r"""
import http.client, importlib.metadata, importlib.util, json, os, pathlib
writable, foreign = [], []
for top, folders, names in os.walk("/"):
    folders[:] = [n for n in folders if f"{top}/{n}" not in ("//proc", "//sys", "//dev", "//tmp")]
    for path in (os.path.join(top, name) for name in folders + names):
        if not os.path.islink(path):
            if os.access(path, os.W_OK): writable.append(path)
            if path.startswith("/opt/") and os.stat(path).st_uid != 0: foreign.append(path)
told = {
    "packages": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()
                 if str(d._path).startswith("/opt/resight")},
    "compiled": os.path.exists(importlib.util.cache_from_source(http.client.__file__)),
    "writable": writable, "foreign": foreign,
    "left": [p for p in ("/src", "/locks", "/wheels", "/build", "/run/secrets", "/root/.cache")
             if os.path.exists(p)] + list(map(str, pathlib.Path("/var/lib/apt/lists").glob("*_*"))),
    "pip.conf": pathlib.Path("/etc/pip.conf").is_file(),
}
print(json.dumps(told))
"""
OLD = """
from service.catalog import schema
from service.catalog.engine import open_engine
engine = open_engine("sqlite:////data/catalog.sqlite", pool_size=1, writer=True)
with engine.begin() as connection:
    schema.upgrade_to(connection, "0001")
engine.dispose()
"""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return found_engine()


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """Built, unless ``RESIGHT_IMAGE`` names one."""
    return os.environ.get("RESIGHT_IMAGE") or engine.built("service-cpu")


@pytest.fixture(scope="module")
def site() -> Iterator[Path]:
    """A bundle and three crops, which anybody may read."""
    with tempfile.TemporaryDirectory(prefix="resight-image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        tiny_bundle_at(folder / "bundle")
        (folder / "crops").mkdir()
        lines = ["path,camera,capture_time"]
        for number in range(3):
            (folder / "crops" / f"{number}.jpg").write_bytes(jpeg(number))
            lines.append(f"{number}.jpg,cam-{number % 2},2026-01-01T00:00:0{number}Z")
        (folder / "crops" / "crops.csv").write_text("\n".join(lines) + "\n")
        yield folder


def mounted(site: Path, volume: str) -> list[str]:
    return [
        f"--volume={volume}:/data",
        f"--volume={site / 'bundle'}:/bundle:ro",
        f"--volume={site / 'crops'}:/crops:ro",
        "--env=RESIGHT_BUNDLE=/bundle",
    ]


def test_what_is_in_it(engine: Engine, image: str) -> None:
    """What the lock file says, in its versions; nothing of how it was made; nothing to write to."""
    told = json.loads(engine.done("run", "--rm", "--entrypoint=python", image, "-c", CONTENT))
    locked = {
        canonicalize_name(entry.name): str(entry.specifier).removeprefix("==")
        for line in re.findall(r"^[a-z0-9][^\\\n]*", LOCK.read_text(), re.MULTILINE)
        if (entry := Requirement(line.strip())).marker is None or entry.marker.evaluate()
    }
    found = {canonicalize_name(name): each for name, each in told["packages"].items()}
    assert found.pop(canonicalize_name("resight")) == version("resight")
    assert found == locked, "no pip, no setuptools, no torch: what is not locked is not there"
    assert told["compiled"], "Python's own modules"
    assert (told["left"], told["pip.conf"], told["foreign"]) == ([], False, [])
    allowed = ("/data", "/var/tmp", "/run/lock")
    assert [path for path in told["writable"] if path not in allowed] == []


def test_what_the_engine_makes_of_it(engine: Engine, image: str) -> None:
    (told,) = json.loads(engine.done("image", "inspect", image))
    config = told["Config"]
    assert config["User"] == "10001:10001"
    assert (config["Entrypoint"], config["Cmd"]) == (["tini", "--", "resight"], ["serve"])
    check = told["Healthcheck"] if "Healthcheck" in told else config["Healthcheck"]
    assert check["Test"] == ["CMD", "python", "-m", "service.healthcheck"]
    assert set(config["Volumes"]) == {"/data"}
    names = {each.split("=")[0] for each in config["Env"]}
    assert not {name for name in names if re.search("PIP|PROXY|KEY(?!S)|TOKEN|SECRET", name, re.I)}
    layers = engine.done("history", "--no-trunc", "--format={{.CreatedBy}}", image)
    assert "CERTIFICATE" not in layers


def test_crops_are_stored_found_and_still_there(engine: Engine, image: str, site: Path) -> None:
    with engine.volume() as volume:
        options = mounted(site, volume)
        with engine.running(*options, image) as container:
            container.until(*READY)
            container.exec("python", "-m", "service.healthcheck")
            status = container.exec("cat", "/proc/1/status")
            for line in (
                "Uid:\t10001\t10001\t10001\t10001", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000",
                "CapEff:\t0000000000000000", "Seccomp:\t2",
            ):  # fmt: skip
                assert line in status
            assert engine("exec", container.name, "touch", "/opt/x").returncode != 0
            container.exec("resight", "ingest", "/crops/crops.csv", "--register-cameras")
            told = container.exec("resight", "search", "/crops/1.jpg", "--top-k", "1")
            assert "1.0000" in told
            assert container.stopped() == 0, container.log()
            log = container.log()
            assert "SIGTERM" in log
            assert '"message": "stopped"' in log
        with engine.running(*options, image) as container:
            container.until(*READY)
            assert "crops=3" in container.log()
            assert container.stopped() == 0


def test_a_data_volume_of_an_older_version(engine: Engine, image: str, site: Path) -> None:
    with engine.volume() as volume:
        options = mounted(site, volume)
        engine.done("run", "--rm", *HARDENED, *options, "--entrypoint=python", image, "-c", OLD)
        with engine.running(*options, image) as container:
            container.until(*READY)
            assert f"catalog schema upgraded from 0001 to {head_revision()}" in container.log()
            assert container.stopped() == 0


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["serve"], "RESIGHT_BUNDLE"),
        (["serve", "--bundle", "/gone"], "/gone"),
        (["serve", "--grpc-port", "99999"], "RESIGHT_GRPC__PORT"),
        (["serve", "--bundle", "/bundle", "--host", "0.0.0.0"], "TLS"),  # noqa: S104
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    engine: Engine, image: str, site: Path, command: list[str], named: str
) -> None:
    bundle = f"--volume={site / 'bundle'}:/bundle:ro"
    done = engine("run", "--rm", *HARDENED, bundle, image, *command)
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert named in line
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_configuration_can_be_checked(engine: Engine, image: str, site: Path) -> None:
    with engine.volume() as volume:
        checked = ["config", "check"]
        told = engine.done("run", "--rm", *HARDENED, *mounted(site, volume), image, *checked)
    assert {line.split()[0] for line in told.splitlines()} == {"ok"}


def test_a_folder_of_somebody_else_is_refused(engine: Engine, image: str, site: Path) -> None:
    """What a bind mount of root's folder is like."""
    closed = site / "closed"
    closed.mkdir(mode=0o755)
    done = engine("run", "--rm", *HARDENED, *mounted(site, str(closed)), image)
    assert done.returncode == 1
    assert "data_dir /data cannot be written" in done.stderr
