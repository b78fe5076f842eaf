"""The container file: what is in the images, and its steps run in a plain virtual environment."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.manifests import DEPLOY, ROOT
from tests.e2e.conftest import tiny_bundle_at

FILE = DEPLOY / "container" / "Containerfile"
LOCKS = FILE.parent / "locks"
TEXT = FILE.read_text()
IMAGES = ("service-cpu", "service-gpu", "adapt")
PIN = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """What each stage is from, and its instructions."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    lines = "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))
    for line in lines.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            instructions: list[tuple[str, str]] = []
            found[name] = (source, instructions)
        elif word and found:
            instructions.append((word, rest.strip()))
    return found


def inherited(target: str) -> list[tuple[str, str]]:
    """The instructions that an image is made by, those of what it is from first."""
    source, own = stages()[target]
    return (inherited(source) if source in stages() else []) + own


def environment(target: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for word, rest in inherited(target):
        if word == "ENV":
            told |= dict(part.split("=", 1) for part in shlex.split(rest))
    return told


def pins(path: Path) -> set[tuple[str, str]]:
    """Name and version; of two versions for two platforms, both."""
    return set(PIN.findall(path.read_text()))


def names(image: str) -> set[str]:
    return {name for name, _ in pins(LOCKS / f"{image}.txt")}


def test_hadolint_finds_nothing_to_complain_of() -> None:
    program = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([program, FILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    # It does look: what it knows to be wrong is told.
    bad = TEXT.replace("--no-install-recommends", "").replace("# hadolint ignore=DL3008\n", "")
    done = subprocess.run([program, "-"], input=bad, capture_output=True, text=True, check=False)
    assert {"DL3008", "DL3015"} <= set(re.findall(r"DL\d+", done.stdout))


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_locked_is_what_is_tested(image: str) -> None:
    tested, locked = pins(ROOT / "requirements" / f"{image}.txt"), pins(LOCKS / f"{image}.txt")
    assert tested <= locked
    assert image != "adapt" or tested == locked
    entries = re.split(r"\n(?=[a-z0-9])", (LOCKS / f"{image}.txt").read_text().strip())
    assert len(entries) == len(locked)
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("image", ["service-cpu", "service-gpu"])
def test_the_service_is_without_torch(image: str) -> None:
    locked = names(image)
    assert not {"torch", "torchvision", "timm", "triton", "numba"} & locked
    assert "s3fs" in locked
    assert "onnxruntime" in {name.removesuffix("-gpu") for name in locked}


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_is_run_by_nobody_and_has_an_init(image: str) -> None:
    instructions = dict(inherited(image))
    user = int(instructions["USER"].split(":")[0])
    assert user > 9999
    assert instructions["ENTRYPOINT"] == '["tini", "--", "resight"]'
    assert instructions["HEALTHCHECK"].endswith(
        "NONE" if image == "adapt" else '"service.healthcheck"]'
    )
    assert "/opt/resight /opt/resight" in instructions["COPY"]
    assert f"--from={image}-environment" in instructions["COPY"]


def test_what_images_are_made_from_is_pinned_and_known() -> None:
    known = stages()
    (default,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", TEXT, re.MULTILINE)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", default)
    assert {source for source, _ in known.values()} <= {"${PYTHON_IMAGE}", *known}
    assert list(known)[-1] == "service-cpu", "without --target"
    assert set(IMAGES) <= set(known)


def allowed(path: str) -> bool:
    """Whether .dockerignore lets a file through; the last line that fits decides."""
    through = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        fits = pattern == "*" or any(
            fnmatch.fnmatchcase("/".join(parts[:length]), pattern)
            for length in range(1, len(parts) + 1)
        )
        if "**/" in line:
            fits = any(fnmatch.fnmatchcase(part, pattern) for part in parts)
        if fits:
            through = line.startswith("!")
    return through


def test_the_context_holds_what_is_copied_and_nothing_of_value() -> None:
    for _, instructions in stages().values():
        for word, rest in instructions:
            if word == "COPY" and "--from" not in rest:
                *sources, _ = rest.split()
                assert all(allowed(source) and (ROOT / source).exists() for source in sources)
    for path in (
        ".git/config", ".venv/bin/python", "tests/conftest.py",
        "resight-data/catalog.sqlite", "runs/night", "service/__pycache__/x.pyc", ".env",
        "deploy/compose/secrets/bootstrap-key",
    ):  # fmt: skip
        assert not allowed(path), path


@pytest.mark.parametrize("image", IMAGES)
def test_an_index_of_ones_own_leaves_no_trace(image: str) -> None:
    """Its address, password and CA are secrets of the build, for each step that asks an index."""
    for stage in ("build", f"{image}-environment"):
        asked = [
            rest
            for word, rest in stages()[stage][1]
            if word == "RUN" and "--require-hashes" in rest
        ]
        assert asked
        for rest in asked:
            mounts = re.findall(r"--mount=(\S+)", rest)
            assert mounts == [
                "type=secret,id=pip.conf,target=/etc/pip.conf",
                "type=secret,id=ca.pem",
            ]
    assert "pip.conf" not in "".join(rest for word, rest in inherited(image) if word == "COPY")


@pytest.mark.parametrize("image", IMAGES)
def test_the_environment_is_whole_and_has_no_installer(image: str) -> None:
    """The base image's pip and setuptools are of no locked version."""
    (steps,) = [rest for word, rest in stages()[f"{image}-environment"][1] if word == "RUN"]
    assert "python -m venv --without-pip /opt/resight" in steps
    assert "/build/bin/pip --python /opt/resight check" in steps
    assert "/opt/resight/bin/pip" not in steps


@pytest.mark.skipif("RESIGHT_IMAGE_CHECK" not in os.environ, reason="minutes: make image-check")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("image", IMAGES)
def test_what_is_compiled_can_be(image: str) -> None:
    """A package may hold files of a newer Python, and one of them would end the build."""
    (steps,) = [rest for word, rest in stages()[f"{image}-environment"][1] if word == "RUN"]
    left_out = re.search(r"compileall .*-x '([^']*)'", steps)
    failed = []
    for name in names(image):
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for path in (str(each.locate()) for each in files if each.suffix == ".py"):
            if not (left_out and re.search(left_out[1], path)) and Path(path).exists():
                try:
                    compile(Path(path).read_bytes(), path, "exec", dont_inherit=True)
                except SyntaxError:
                    failed.append(path)
    assert failed == []


def interpreter_for_all() -> tuple[str, bool]:
    """A Python of this version that every user may run, when root can become one; else this one."""
    for name in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        path = Path(os.path.realpath(name))
        asked = "import sys, ensurepip; print(*sys.version_info[:2])"
        if os.geteuid() == 0 and all(each.stat().st_mode & 0o1 for each in path.parents):
            done = subprocess.run([path, "-c", asked], capture_output=True, text=True, check=False)
            if done.stdout.split() == [str(part) for part in sys.version_info[:2]]:
                return str(path), True
    return sys.executable, False


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Anybody may read it, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="resight-image-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.skipif("RESIGHT_IMAGE_CHECK" not in os.environ, reason="minutes: make image-check")
@pytest.mark.timeout(900)
def test_the_steps_of_the_service_image(open_folder: Path) -> None:
    """Lock file with hashes, wheel of the context, compiled; then served by nobody who may write
    nowhere but in /data and /tmp.
    """
    interpreter, may_be_somebody = interpreter_for_all()
    context, opt = open_folder / "context", open_folder / "opt"
    listed = subprocess.run(
        [str(shutil.which("git")), "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    for name in listed:
        if allowed(name) and (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, context / name)
    for stage in ("build", "service-cpu-environment"):
        for word, rest in stages()[stage][1]:
            if word == "RUN":
                steps = re.sub(r"--mount=\S+", "", rest)
                for path, instead in (
                    ("/locks/build.txt", LOCKS / "build.txt"),
                    ("/locks/requirements.txt", LOCKS / "service-cpu.txt"),
                    ("/opt/resight", opt),
                    ("/build", open_folder / "b"),
                    ("/wheels", open_folder / "wheels"),
                    ("python -m venv", f"{interpreter} -m venv"),
                ):
                    steps = re.sub(rf"(?<!\S){path}", str(instead), steps)
                told = os.environ | environment("build") | {"PIP_REQUIRE_VIRTUALENV": "0"}
                subprocess.run(["/bin/sh", "-ec", steps], cwd=context, env=told, check=True)
    data, tmp = open_folder / "data", open_folder / "tmp"
    user = int(dict(inherited("service-cpu"))["USER"].split(":")[0])
    somebody: dict[str, Any] = (
        {"user": user, "group": user, "extra_groups": []} if may_be_somebody else {}
    )
    for folder in (data, tmp):
        folder.mkdir(mode=0o700)
        if somebody:
            os.chown(folder, user, user)
    bundle = tiny_bundle_at(open_folder / "bundle")
    python = opt / "bin" / "python"
    told = {
        name: value.replace("/tmp", str(tmp)).replace("/data", str(data))
        for name, value in environment("service-cpu").items()
    }
    told |= {
        "PATH": f"{opt / 'bin'}:/usr/bin:/bin", "TMPDIR": str(tmp), "RESIGHT_BUNDLE": str(bundle),
        "RESIGHT_GRPC__PORT": "0", "RESIGHT_REST__PORT": "0", "RESIGHT_PROBES__PORT": "17090",
    }  # fmt: skip
    ask = [
        str(python),
        "-c",
        "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('s3fs') is None)",
    ]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split() == [
        "None",
        "False",
    ]
    before = {path: path.stat().st_mtime_ns for path in opt.rglob("*")}
    entry = [opt / "bin" / "resight", *json.loads(dict(inherited("service-cpu"))["CMD"])]
    with subprocess.Popen(
        entry,
        env=told,
        cwd=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **somebody,
    ) as process:
        line = process.stdout.readline() if process.stdout else ""
        assert line.startswith("ready "), process.communicate()
        check = re.search(r"CMD \[(.*)\]", dict(inherited("service-cpu"))["HEALTHCHECK"])
        assert check is not None
        command = [part.strip().strip('"') for part in check[1].split(",")]
        healthy = subprocess.run([python, *command[1:]], env=told, check=False, **somebody)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=120)
    assert (healthy.returncode, process.returncode) == (0, 0), log
    unhealthy = subprocess.run([python, *command[1:]], env=told, check=False, capture_output=True)
    assert unhealthy.returncode == 1
    assert before == {path: path.stat().st_mtime_ns for path in opt.rglob("*")}
    done = subprocess.run(
        [opt / "bin" / "resight", "adapt", "nightly", "--live", bundle, "--state", data],
        env=told, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "resight[adapt]" in done.stderr
