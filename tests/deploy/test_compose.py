"""The compose file against its specification's schema, the command line and the settings."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from sqlalchemy.engine import make_url

from service.access.bootstrap import bootstrap_digest
from service.catalog.audit import all_entries
from service.catalog.engine import open_engine
from service.catalog.schema import upgrade_to
from service.healthcheck import address
from service.signing import open_signing_key
from tests.deploy.command_line import parsed, settings_of, unknown_names
from tests.deploy.manifests import DEPLOY, ROOT, tool

FOLDER = DEPLOY / "compose"
# What whoever uses the file puts there.
GIVEN = ("./bundle", "./secrets/", "./tls")
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def interpolated(value: Any) -> Any:
    """Variables replaced by their defaults."""
    if isinstance(value, dict):
        return {key: interpolated(each) for key, each in value.items()}
    if isinstance(value, list):
        return [interpolated(each) for each in value]
    return VARIABLE.sub(lambda found: found[2], value) if isinstance(value, str) else value


def read(*names: str) -> dict[str, Any]:
    """The files as compose puts them together."""
    merged: dict[str, Any] = {}
    for name in names:
        for section, entries in interpolated(yaml.safe_load((FOLDER / name).read_text())).items():
            if section.startswith("x-"):
                continue
            for key, entry in entries.items():
                before = merged.setdefault(section, {}).setdefault(key, {})
                for part, value in (entry or {}).items():
                    if isinstance(value, list):
                        before[part] = [*before.get(part, []), *value]
                    elif isinstance(value, dict):
                        before[part] = before.get(part, {}) | value
                    else:
                        before[part] = value
    return merged


SITE = read("compose.yaml")
SERVICES: dict[str, dict[str, Any]] = SITE["services"]
OURS = ("migrate", "service", "night")
services = pytest.mark.parametrize("name", sorted(SERVICES))


def environment_of(name: str, site: dict[str, Any], folder: Path) -> dict[str, str]:
    """As the container has it; files of secrets are those in a folder."""
    told: dict[str, str] = site["services"][name]["environment"]
    return {key: value.replace("/run/secrets", str(folder)) for key, value in told.items()}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run([FOLDER / "make-secrets.sh", folder], check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", ["compose.yaml", "compose.tls.yaml"])
def test_the_file_follows_the_specification(name: str) -> None:
    schema = json.loads(tool("compose_spec.json").read_text())
    content = interpolated(yaml.safe_load((FOLDER / name).read_text()))
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(content)


@services
def test_everything_that_is_named_is_there(name: str) -> None:
    service = SERVICES[name]
    for secret in service.get("secrets", ()):
        assert secret in SITE["secrets"]
    for network in service["networks"]:
        assert network in SITE["networks"]
    for needed in service.get("depends_on", {}):
        assert needed in SERVICES
    for volume in service.get("volumes", ()):
        source = volume.split(":")[0]
        if not source.startswith("."):
            assert source in SITE["volumes"]
        elif not source.startswith(GIVEN):
            assert (FOLDER / source).exists(), source
    if "build" in service:
        build = service["build"]
        container_file = FOLDER / build["context"] / build["dockerfile"]
        assert re.search(rf"^FROM .* AS {build['target']}$", container_file.read_text(), re.M)


@services
def test_every_container_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    image = service["image"].rpartition(":")
    assert image[0]
    assert image[2] != "latest"
    if name not in OURS:
        assert int(service["user"].split(":")[0]) > 0
    if name not in ("migrate", "night"):
        assert service["healthcheck"]["test"][0] == "CMD"


def test_the_catalog_is_reached_by_who_needs_it_and_goes_nowhere() -> None:
    assert SITE["networks"]["database"] == {"internal": True}
    assert {name for name, each in SERVICES.items() if "database" in each["networks"]} == {
        "postgres", "migrate", "service",
    }  # fmt: skip


@pytest.mark.parametrize("name", OURS)
def test_every_command_is_one_of_ours(name: str, secrets: Path) -> None:
    told = environment_of(name, SITE, secrets)
    command = SERVICES[name]["command"]
    assert unknown_names(told, command) == set()
    parameters = parsed(command, told)
    if name == "night":
        assert (parameters["target"], str(parameters["state"])) == ("service:7443", "/data")


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.tls.yaml"]])
def test_the_environment_is_one_that_the_service_takes(files: list[str], secrets: Path) -> None:
    site = read(*files)
    told = environment_of("service", site, secrets)
    settings = settings_of(told)
    assert settings.authentication_required
    assert settings.allow_insecure_network == (len(files) == 1)
    assert (settings.tls.certificate_file is None) == (len(files) == 1)
    published = {int(port.rsplit(":", 1)[1]) for port in site["services"]["service"]["ports"]}
    assert published == {settings.grpc.port, settings.rest.port}
    assert address(told) == f"http://127.0.0.1:{settings.probes.port}"
    stop = int(site["services"]["service"]["stop_grace_period"].removesuffix("s"))
    assert stop > settings.drain_delay_seconds + settings.drain_seconds


def test_the_service_begins_when_the_schema_is_there() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["service"]["depends_on"]["migrate"] == {
        "condition": "service_completed_successfully"
    }
    assert SERVICES["migrate"]["command"] == ["db", "upgrade"]


def test_the_upgrade_stands_in_the_audit_signed_as_the_service_signs(
    secrets: Path, tmp_path: Path, postgresql_url: str
) -> None:
    """The step of the compose file as a process: its command, environment and secrets alone."""
    step, service = (SERVICES[name] for name in ("migrate", "service"))
    granted = tmp_path / "secrets"
    granted.mkdir()
    for name in step["secrets"]:
        shutil.copy(secrets / name, granted)
    (granted / "database-url").unlink()
    (granted / "database-url").write_text(postgresql_url)
    told = {name: each for name, each in os.environ.items() if not name.startswith("RESIGHT_")}
    told |= environment_of("migrate", SITE, granted)
    engine = open_engine(postgresql_url, pool_size=1, writer=True)
    with engine.begin() as connection:
        upgrade_to(connection, "0001")

    def ran(*command: str) -> dict[str, Any]:
        here = tmp_path / "here"
        here.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", "resight", *command, "--json"],
            env=told | {"PYTHONPATH": str(ROOT)}, cwd=here, check=False, timeout=300,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "the audit does not say" not in done.stderr
        assert list(here.iterdir()) == [], "the container's root is read-only"
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    upgrades = [ran(*step["command"]) for _ in range(2)]
    assert [each["upgraded"] for each in upgrades] == [True, False]
    with engine.connect() as connection:
        entries = [json.loads(each.body) for each in all_entries(connection)]
    engine.dispose()
    kept = [each for each in entries if each["action"] == "command/db-upgrade"]
    assert [each["event"] for each in kept] == ["began", "ended"]
    assert [each["notes"] for each in kept] == [{"from": "0001", "to": upgrades[0]["to"]}] * 2
    path = service["environment"]["RESIGHT_AUDIT__SIGNING_KEY_FILE"]
    signing = open_signing_key(secrets / Path(path).name, tmp_path)
    (tmp_path / "public.pem").write_text(signing.public_pem)
    verify = ["--data", str(tmp_path / "none"), "--public-key", str(tmp_path / "public.pem")]
    verdict = ran("audit", "verify", *verify)
    assert (verdict["faults"], verdict["chains"], verdict["unsigned_entries"]) == ([], 1, 0)


def test_the_example_names_every_variable_with_its_default() -> None:
    lines = (FOLDER / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
    used = {
        name: default
        for file in ("compose.yaml", "compose.tls.yaml")
        for name, default in VARIABLE.findall((FOLDER / file).read_text())
    }
    assert example == used


def test_the_secrets_are_made_once_and_are_what_the_service_takes(secrets: Path) -> None:
    files = {path.name: path.read_bytes() for path in secrets.iterdir()}
    assert set(files) == set(SITE["secrets"]) - {"night-key"}
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert len(set(files.values())) == len(files)
    bootstrap_digest(secrets / "bootstrap-key")
    open_signing_key(secrets / "audit-signing-key", secrets)
    url = make_url(files["database-url"].decode().strip())
    assert (url.host, url.database, url.username) == ("postgres", "resight", "resight")
    assert url.password == files["postgres-password"].decode().strip()
    subprocess.run([FOLDER / "make-secrets.sh", secrets], check=True, capture_output=True)
    assert files == {path.name: path.read_bytes() for path in secrets.iterdir()}


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    config = (FOLDER / "prometheus.yml").read_text()
    (mount,) = [each for each in SERVICES["prometheus"]["volumes"] if each.startswith("../")]
    source, target, _ = mount.split(":")
    assert target in config
    path = tmp_path / "prometheus.yml"
    path.write_text(config.replace(target, str((FOLDER / source).resolve())))
    done = subprocess.run(
        [tool("promtool"), "check", "config", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2 rule files found" in done.stdout
    (job,) = yaml.safe_load(config)["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["service:7090"]


def test_prometheus_keeps_the_exemplars_that_the_pages_describe() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    (feature,) = set(re.findall(r"`(--enable-feature=[\w-]+)`", page))
    assert feature in SERVICES["prometheus"]["command"]


def test_alerts_reach_the_alertmanager_of_the_profile() -> None:
    """Prometheus looks for it by name, so that there need not be one."""
    (found,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["alerting"]["alertmanagers"]
    (names,) = found["dns_sd_configs"]
    assert names["type"] == "A"
    (name,) = names["names"]
    manager = SERVICES[name]
    assert manager["profiles"] == ["alerts"]
    assert set(manager["networks"]) & set(SERVICES["prometheus"]["networks"])
    assert manager["ports"] == [f"127.0.0.1:9093:{names['port']}"]
    source, target, _ = manager["volumes"][0].split(":")
    assert f"--config.file={target}" in manager["command"]
    assert (FOLDER / source).resolve() == DEPLOY / "prometheus" / "alertmanager.yml"


def test_grafana_finds_its_source_and_its_boards() -> None:
    (source,) = yaml.safe_load(
        (FOLDER / "grafana" / "datasources" / "prometheus.yaml").read_text()
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert set(SERVICES["grafana"]["networks"]) & set(SERVICES["prometheus"]["networks"])
    (provider,) = yaml.safe_load((FOLDER / "grafana" / "dashboards" / "resight.yaml").read_text())[
        "providers"
    ]
    mounts = dict(each.split(":")[:2] for each in SERVICES["grafana"]["volumes"])
    assert provider["options"]["path"] in mounts.values()


class Night:
    """night.sh with a resight and a sleep of its own."""

    def __init__(self, folder: Path, resight: str) -> None:
        programs, self.folder = folder / "bin", folder
        programs.mkdir()
        sleeps = '#!/bin/sh\necho "$1" >> "$NIGHT_TEST/slept"\n'
        # The first wait is over at once, the second one never.
        sleeps += 'if [ "$(wc -l < "$NIGHT_TEST/slept")" -gt 1 ]; then exec REAL 1000; fi\n'
        for name, text in (
            ("sleep", sleeps.replace("REAL", str(shutil.which("sleep")))),
            ("resight", f'#!/bin/sh\necho "$*" >> "$NIGHT_TEST/ran"\n{resight}\n'),
        ):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.at = (datetime.now(UTC) - timedelta(hours=3)).strftime("%H:%M")
        self.process = subprocess.Popen(
            [FOLDER / "night.sh", *SERVICES["night"]["command"]],
            env={
                "PATH": f"{programs}:{os.environ['PATH']}", "NIGHT_TEST": str(folder),
                "NIGHT_AT": self.at, "NIGHT_LIMIT": SERVICES["night"]["environment"]["NIGHT_LIMIT"],
            },
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def until(self, name: str, lines: int) -> list[str]:
        path, end = self.folder / name, time.monotonic() + 120
        while not path.exists() or len(path.read_text().splitlines()) < lines:
            assert time.monotonic() < end, name
            time.sleep(0.02)
        return path.read_text().splitlines()

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, told = self.process.communicate(timeout=120)
        return self.process.returncode, told


def test_a_night_comes_when_it_should_and_the_next_one_after_it(tmp_path: Path) -> None:
    night = Night(tmp_path, "exit 3")
    first, second = map(int, night.until("slept", 2))
    assert night.until("ran", 1) == ["adapt nightly"]
    # Three hours ago, so in twenty-one; to the minute.
    assert abs(first - 21 * 3600) <= 61
    assert abs(second - first) <= 61
    code, told = night.stop()
    assert code == 0
    lines = [json.loads(line) for line in told.splitlines()]
    assert [line["message"].split(" at ")[0] for line in lines] == [
        "next night", "begins", "ended with exit code 3", "next night",
    ]  # fmt: skip
    assert f"T{night.at}:00Z" in told


def test_who_ends_the_container_ends_the_night(tmp_path: Path) -> None:
    script = tmp_path / "long_night.py"
    script.write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        f"here = Path({str(tmp_path)!r})\n"
        "def told(*_): (here / 'told').write_text('told\\n'); sys.exit(1)\n"
        "signal.signal(signal.SIGTERM, told)\n(here / 'up').write_text('up\\n')\ntime.sleep(100)\n"
    )
    night = Night(tmp_path, f"exec {sys.executable} {script}")
    night.until("up", 1)
    code, _ = night.stop()
    assert code == 0
    assert (tmp_path / "told").read_text() == "told\n"
