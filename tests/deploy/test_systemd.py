"""The units: parsed, verified by systemd where it is there, and their commands by our own."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.command_line import parsed, settings_of, unknown_names
from tests.deploy.manifests import DEPLOY

FOLDER = DEPLOY / "systemd"
SERVICES = ("resight.service", "resight-night.service")
# docs/nightly.md; what is in the files that the units name.
GIVEN = {
    "resight.service": {"RESIGHT_BUNDLE": "/srv/bundle"},
    "resight-night.service": {"RESIGHT_ADAPT_NIGHTLY_LIVE": "/srv/live"},
}


def unit(name: str) -> dict[str, list[str]]:
    """Values of each key; no two sections of ours share one."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", SERVICES)
def test_the_commands_are_ours(name: str) -> None:
    found = unit(name)
    told = dict(each.split("=", 1) for each in found["Environment"]) | GIVEN[name]
    for key in ("ExecStartPre", "ExecStart"):
        for command in found.get(key, ()):
            program, *arguments = shlex.split(command)
            assert program.endswith("/bin/resight")
            parsed(arguments, told)
    assert unknown_names(told, arguments) == set()


@pytest.mark.parametrize("name", SERVICES)
def test_the_units_are_hardened(name: str) -> None:
    found = {key: values[-1] for key, values in unit(name).items()}
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictNamespaces"):
        assert found[key] == "yes"
    assert (found["ProtectSystem"], found["CapabilityBoundingSet"]) == ("strict", "")
    assert found["User"] not in ("", "root")


def test_the_service_has_time_to_drain() -> None:
    settings = settings_of(GIVEN["resight.service"])
    seconds = float(unit("resight.service")["TimeoutStopSec"][0])
    assert seconds > settings.drain_delay_seconds + settings.drain_seconds


def test_a_night_that_is_refused_has_done_its_work() -> None:
    found = unit("resight-night.service")
    assert found["SuccessExitStatus"] == ["3"]
    assert found["Type"] == ["oneshot"]
    assert unit("resight-night.timer")["OnCalendar"] == ["*-*-* 01:15:00 UTC"]


def test_systemd_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze on this machine")
    for path in FOLDER.iterdir():
        text = path.read_text().replace("/opt/resight-adapt/bin/resight", "/bin/true")
        (tmp_path / path.name).write_text(text.replace("/opt/resight/bin/resight", "/bin/true"))
    units = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(
        [program, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert ours == []
