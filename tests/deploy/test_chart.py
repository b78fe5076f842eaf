"""The chart, rendered for several kinds of sites, against Kubernetes' schemas and our own code."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.deploy.command_line import parsed, settings_of, unknown_names
from tests.deploy.manifests import (
    CASES,
    CHART,
    RELEASE,
    helm,
    of_kind,
    one,
    pod_specs,
    rendered,
    values_of,
)

KUBERNETES = ("1.30", "1.34")
MONITORING = "monitoring.coreos.com/"
cases = pytest.mark.parametrize("case", CASES)


@cases
def test_helm_finds_nothing_to_complain_of(case: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(values_of(case)))
    assert done.returncode == 0, done.stdout + done.stderr


@cases
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_knows_every_field(case: str, version: str) -> None:
    checked = 0
    for each in rendered(case):
        if not each["apiVersion"].startswith(MONITORING):
            kubernetes_validate.validate(each, version, strict=True)
            checked += 1
    assert checked >= 8


@cases
def test_every_command_is_one_of_ours(case: str) -> None:
    commands = {}
    for name, spec in pod_specs(rendered(case)):
        for container in spec["containers"]:
            assert "command" not in container, "the image's entrypoint runs resight"
            env = {each["name"]: each["value"] for each in container.get("env", ())}
            commands[name] = parsed(container["args"], env)
            assert unknown_names(env, container["args"]) == set()
    assert f"Deployment/{RELEASE}-resight" in commands
    if case != "single":
        assert (
            str(commands[f"CronJob/{RELEASE}-resight-night"]["target"]) == f"{RELEASE}-resight:7443"
        )
        assert len(commands) == 3


@cases
def test_the_environment_is_one_that_the_service_takes(case: str, tmp_path: Path) -> None:
    told = dict(one(rendered(case), "ConfigMap")["data"])
    assert unknown_names(told, ["serve"]) == set()
    for name in ("RESIGHT_DATABASE_URL_FILE",):
        if name in told:
            (tmp_path / name).write_text("postgresql+psycopg://somebody@somewhere/resight")
            told[name] = str(tmp_path / name)
    settings = settings_of(told)
    assert settings.authentication_required
    assert settings.drain_delay_seconds >= 1
    if case == "production":
        assert settings.search.threads == 2
        assert settings.governance.require_purpose
    assert (settings.database_url is None) == (case == "single")
    nights = [each for each in rendered(case) if each["kind"] == "CronJob"]
    assert settings.nightly.expected == (("default",) if nights else ())


@cases
def test_probes_and_ports_agree_with_the_settings(case: str) -> None:
    manifests = rendered(case)
    settings = one(manifests, "ConfigMap")["data"]
    spec = one(manifests, "Deployment")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert {name: str(port) for name, port in ports.items()} == {
        name: settings[f"RESIGHT_{name.upper()}__PORT"] for name in ("grpc", "rest", "probes")
    }
    for name, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/healthz")):
        asked = container[f"{name}Probe"]["httpGet"]
        assert (asked["path"], asked["port"]) == (path, "probes")
    delay = float(settings["RESIGHT_DRAIN_DELAY_SECONDS"])
    drain = float(settings["RESIGHT_DRAIN_SECONDS"])
    assert spec["terminationGracePeriodSeconds"] > delay + drain
    readiness = container["readinessProbe"]
    assert delay > 2 * readiness["periodSeconds"] * readiness["failureThreshold"]
    for service in of_kind(manifests, "Service"):
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= set(ports)


@cases
def test_files_that_the_settings_name_are_mounted(case: str) -> None:
    for name, spec in pod_specs(rendered(case)):
        (container,) = spec["containers"]
        told = {each["name"]: each["value"] for each in container.get("env", ())}
        if "envFrom" in container:
            told |= one(rendered(case), "ConfigMap")["data"]
        volumes = {each["name"]: each for each in spec["volumes"]}
        mounts = {each["mountPath"]: volumes[each["name"]] for each in container["volumeMounts"]}
        for setting, path in told.items():
            if not path.startswith("/secrets/"):
                continue
            folder, file = path.rsplit("/", 1)
            secret = mounts[folder]["secret"]
            assert "items" not in secret or [file] == [each["path"] for each in secret["items"]], (
                name, setting,
            )  # fmt: skip


def test_how_pods_are_exchanged() -> None:
    several = one(rendered("production"), "Deployment")["spec"]
    assert several["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in several, "the autoscaler's"
    assert one(rendered("gpu"), "Deployment")["spec"]["replicas"] == 2
    single = one(rendered("single"), "Deployment")["spec"]
    assert (single["replicas"], single["strategy"]) == (1, {"type": "Recreate"})
    assert not list(of_kind(rendered("single"), "PodDisruptionBudget"))
    assert one(rendered("gpu"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_night_is_a_job_that_is_not_repeated_for_nothing() -> None:
    night = one(rendered("production"), "CronJob")["spec"]
    assert night["concurrencyPolicy"] == "Forbid"
    job = night["jobTemplate"]["spec"]
    assert 4 * 3600 < job["activeDeadlineSeconds"] < 24 * 3600
    refused, drained = job["podFailurePolicy"]["rules"]
    assert (refused["action"], refused["onExitCodes"]["values"]) == ("FailJob", [2, 3])
    assert drained["action"] == "Ignore"
    spec = job["template"]["spec"]
    assert spec["restartPolicy"] == "Never"
    assert [each["key"] for volume in spec["volumes"] if volume["name"] == "tls"
            for each in volume["secret"]["items"]] == ["ca.crt"]  # fmt: skip
    gpus = {
        case: one(rendered(case), "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"][
            "containers"
        ][0]["resources"]["limits"].get("nvidia.com/gpu")
        for case in ("production", "gpu")
    }
    assert gpus == {"production": None, "gpu": 1}


def test_the_migration_comes_before_everything_and_before_the_way_back() -> None:
    job = one(rendered("gpu"), "Job")
    hooks = job["metadata"]["annotations"]["helm.sh/hook"].split(",")
    assert set(hooks) == {"pre-install", "pre-upgrade", "pre-rollback"}
    assert "serviceAccountName" not in job["spec"]["template"]["spec"], "it is not there yet"
    assert not list(of_kind(rendered("single"), "Job"))


def test_the_migration_is_recorded_as_the_service_records() -> None:
    for case, *settings in (
        ("production",),
        ("production", "settings.RESIGHT_AUDIT__ENABLED=off"),
        ("gpu",),
    ):
        manifests = rendered(case, *settings)
        pods = {name.split("/")[0]: spec for name, spec in pod_specs(manifests)}
        told = {each["name"]: each["value"] for each in pods["Job"]["containers"][0]["env"]}
        settled = one(manifests, "ConfigMap")["data"]
        ours = {name for name in told if name.startswith("RESIGHT_AUDIT__")}
        expected = {"RESIGHT_AUDIT__SIGNING_KEY_FILE", "RESIGHT_AUDIT__ENABLED"} & set(settled)
        assert ours == expected
        assert {name: settled[name] for name in told} == told
        keys = [
            (mount, volume)
            for pod in (pods["Job"], pods["Deployment"])
            for mount in pod["containers"][0]["volumeMounts"]
            for volume in pod["volumes"]
            if mount["name"] == volume["name"] == "audit"
        ]
        assert keys == keys[:1] * 2
        assert keys[0][0]["readOnly"] is True


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[2] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
