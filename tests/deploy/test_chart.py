"""The chart, rendered for several kinds of sites, against Kubernetes' schemas and our own code."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from service.telemetry import exposition
from tests.deploy.command_line import parsed, settings_of, unknown_names
from tests.deploy.manifests import (
    CASES,
    CHART,
    RELEASE,
    Manifest,
    helm,
    of_kind,
    one,
    pod_specs,
    rendered,
    tool,
    values_of,
)

KUBERNETES = ("1.30", "1.34")
MONITORING = "monitoring.coreos.com/"
cases = pytest.mark.parametrize("case", CASES)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *strings(each))
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)
    elif isinstance(value, str):
        yield value


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


def test_what_prometheus_operator_reads() -> None:
    """No schema of its kinds is at hand: the fields that its documentation names, and no others."""
    manifests = rendered("production")
    monitor = one(manifests, "ServiceMonitor")
    assert monitor["apiVersion"] == f"{MONITORING}v1"
    assert set(monitor["spec"]) == {"jobLabel", "selector", "endpoints"}
    assert all(set(each) == {"port", "path", "interval"} for each in monitor["spec"]["endpoints"])
    rules = list(of_kind(manifests, "PrometheusRule"))
    assert len(rules) == 2
    for each in rules:
        assert set(each["spec"]) == {"groups"}
        assert {key for group in each["spec"]["groups"] for key in group} <= {
            "name", "rules", "interval", "limit",
        }  # fmt: skip


def test_the_rules_are_those_of_deploy_prometheus(tmp_path: Path) -> None:
    found = {
        each["metadata"]["name"]: each["spec"]
        for each in of_kind(rendered("production"), "PrometheusRule")
    }
    for name, spec in found.items():
        part = name.removeprefix(f"{RELEASE}-resight-")
        source = CHART.parents[1] / "prometheus" / f"resight-{part}.rules.yml"
        assert spec == yaml.safe_load(source.read_text())
        path = tmp_path / f"{name}.yml"
        path.write_text(yaml.safe_dump(spec))
        done = subprocess.run(
            [tool("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["bundle.existingClaim="], "bundle.existingClaim is not set"),
        (["replicas=2"], "SQLite belongs to one process: set database.existingSecret"),
        (["autoscaling.enabled=true"], "SQLite belongs to one process"),
        (["allowInsecureNetwork=false"], "refuses to listen without TLS: set tls.existingSecret"),
        (["database.existingSecret=d"], "images on it would be lost"),
        (["database.existingSecret=d", "images.url=s3://a"], "ledger on it would be lost"),
        (["database.existingSecret=d", "images.url=s3://a", "images.existingClaim=b"], "both set"),
        (["replicas=2", "database.existingSecret=d"], "set images.url"),
        (
            ["replicas=2", "database.existingSecret=d", "images.url=s3://a"],
            "set erasures.existingClaim",
        ),
        (
            ["replicas=2", "database.existingSecret=d", "images.url=s3://a",
             "erasures.existingClaim=e", "data.existingClaim=f"],
            "belongs to one process",
        ),
        (["nightly.enabled=true"], "set nightly.apiKey.existingSecret"),
        (["tls.clientCa=true"], "needs tls.existingSecret"),
        (
            ["tls.existingSecret=t", "tls.clientCa=true", "nightly.enabled=true",
             "nightly.apiKey.existingSecret=n"],
            "set nightly.clientCertificate.existingSecret",
        ),
        (
            ["tls.existingSecret=t", "allowInsecureNetwork=false", "access.authentication=off"],
            "needs allowInsecureNetwork",
        ),
        (["replica=2"], "additional properties 'replica' not allowed"),
        (["replicas=many"], "got string, want integer"),
        (["drain.delaySeconds=1"], "minimum"),
        (["settings.NONSENSE=x"], "'NONSENSE' does not match pattern"),
        (["ports.grpc=7080"], "must be three different ports"),
        (["settings.RESIGHT_TLS__KEY_FILE=/k"], "the chart's own: set tls.existingSecret instead"),
        (["settings.RESIGHT_DATABASE_URL=u"], "set database.existingSecret instead"),
        (["autoscaling.minReplicas=0"], "minimum"),
        (["tracing.endpoint=http://c:9999"], "networkPolicy.tracing.port lets the service go to"),
        (["tracing.endpoint=https://c/v1/traces"], "tracing.endpoint is at port 443"),
        (["images.endpointUrl=http://store:9000"], "images.endpointUrl is at port 9000"),
        (
            ["settings.RESIGHT_ACCESS__JWKS_URL=https://idp/keys"],
            "set networkPolicy.identity.enabled",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_words(settings: list[str], message: str) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    done = helm("template", RELEASE, str(CHART), "--values", str(values_of("single")), *options)
    assert done.returncode != 0
    assert done.stdout == ""
    assert message in done.stderr, done.stderr


def test_the_defaults_say_what_is_missing() -> None:
    done = helm("template", RELEASE, str(CHART))
    assert done.returncode != 0
    assert "bundle.existingClaim is not set" in done.stderr


def test_the_alerts_find_the_job_of_a_release_of_any_name() -> None:
    """Those on what is not scraped select it by its name."""
    manifests = rendered("production", "nameOverride=vision", "fullnameOverride=vision")
    label = one(manifests, "ServiceMonitor")["spec"]["jobLabel"]
    watched = next(
        each for each in of_kind(manifests, "Service")
        if each["metadata"]["labels"].get("app.kubernetes.io/component") == "metrics"
    )  # fmt: skip
    assert "resight" in watched["metadata"]["labels"][label]


def test_settings_that_the_chart_makes_cannot_be_given_twice() -> None:
    told = one(rendered("production"), "ConfigMap")["data"]
    own = [name for name in told if name.startswith("RESIGHT_")]
    given = yaml.safe_load(values_of("production").read_text())["settings"]
    for name in set(own) - set(given):
        done = helm(
            "template", RELEASE, str(CHART), "--values", str(values_of("production")),
            "--set-string", f"settings.{name}=x",
        )  # fmt: skip
        assert done.returncode != 0, name
        assert f"settings.{name} is the chart's own" in done.stderr


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
def test_every_pod_is_hardened(case: str) -> None:
    for name, spec in pod_specs(rendered(case)):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        pod = spec["securityContext"]
        assert (pod["runAsNonRoot"], pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert pod["runAsUser"] > 9999
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        volumes = {each["name"]: each for each in spec["volumes"]}
        assert not [each for each in volumes.values() if "hostPath" in each]
        for each in volumes.values():
            assert "secret" not in each or each["secret"]["defaultMode"] == 0o440
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert not container["image"].endswith(":latest")
            assert ":" in container["image"]
            mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
            assert {"/tmp", "/data"} <= set(mounts)
            assert {each["name"] for each in mounts.values()} == set(volumes)
            assert all(each.get("readOnly") for path, each in mounts.items() if "/secrets" in path)


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


@cases
def test_the_network_policies_name_every_pod_and_only_what_it_needs(case: str) -> None:
    manifests = rendered(case)
    policies = list(of_kind(manifests, "NetworkPolicy"))
    pods = {
        "service": one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"],
    }
    for each in of_kind(manifests, "Job"):
        pods["migration"] = each["spec"]["template"]["metadata"]["labels"]
    for each in of_kind(manifests, "CronJob"):
        pods["night"] = each["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    applied = {}
    for name, labels in pods.items():
        (policy,) = [
            each for each in policies
            if each["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        ]  # fmt: skip
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        applied[name] = policy["spec"]
    assert len(policies) == len(pods)
    # Nobody may come to a job, and the night reaches the service and DNS, not the database.
    for name in set(pods) - {"service"}:
        assert "ingress" not in applied[name]
    if "night" in pods:
        _, to_service = applied["night"]["egress"]
        (peer,) = to_service["to"]
        assert peer["podSelector"]["matchLabels"].items() <= pods["service"].items()
        assert to_service["ports"] == [{"protocol": "TCP", "port": 7443}]
    calls, metrics = applied["service"]["ingress"]
    assert [each["port"] for each in calls["ports"]] == ["grpc", "rest"]
    assert [each["port"] for each in metrics["ports"]] == ["probes"]
    out = {each["port"] for rule in applied["service"]["egress"] for each in rule["ports"]}
    assert out == {"single": {53}, "gpu": {53, 5432}, "production": {53, 5432, 443, 4318}}[case]


@cases
def test_services_find_the_service_alone(case: str) -> None:
    manifests = rendered(case)
    labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    for service in of_kind(manifests, "Service"):
        selector = service["spec"]["selector"]
        assert selector.items() <= labels.items()
        assert selector["app.kubernetes.io/component"] == "service"
    if case == "production":
        wanted = one(manifests, "ServiceMonitor")["spec"]["selector"]["matchLabels"]
        (found,) = [
            each for each in of_kind(manifests, "Service")
            if wanted.items() <= each["metadata"]["labels"].items()
        ]  # fmt: skip
        assert found["metadata"]["name"] == f"{RELEASE}-resight-metrics"


def test_how_pods_are_exchanged() -> None:
    several = one(rendered("production"), "Deployment")["spec"]
    assert several["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in several, "the autoscaler's"
    assert one(rendered("gpu"), "Deployment")["spec"]["replicas"] == 2
    single = one(rendered("single"), "Deployment")["spec"]
    assert (single["replicas"], single["strategy"]) == (1, {"type": "Recreate"})
    assert not list(of_kind(rendered("single"), "PodDisruptionBudget"))
    assert one(rendered("gpu"), "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_autoscaler_asks_for_a_metric_that_is_exported() -> None:
    (metric,) = one(rendered("production"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert re.search(rf"^# TYPE {name} gauge$", exposition()[0].decode(), re.MULTILINE)


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


@cases
def test_no_secret_is_in_what_is_rendered(case: str) -> None:
    manifests = rendered(case)
    assert not list(of_kind(manifests, "Secret"))
    for each in manifests:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "resight"
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
    assert not re.search(
        r"password|BEGIN|rsk_", " ".join(map(str, strings(manifests))), re.IGNORECASE
    )


def test_the_readme_and_the_schema_know_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    table = (CHART / "README.md").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    named = set(re.findall(r"`([a-zA-Z][\w.]*)`", table))

    def walk(tree: Manifest, known: Manifest, path: str) -> Iterator[str]:
        assert known["additionalProperties"] is False, path
        assert set(tree) == set(known["properties"]) - {"global"}, path
        for key, value in tree.items():
            below = known["properties"][key]
            if isinstance(value, dict) and "properties" in below:
                yield from walk(value, below, f"{path}{key}.")
            else:
                yield f"{path}{key}"

    missing = {path for path in walk(values, schema, "") if path not in named}
    assert missing == set()
    ours = {name for name in named if name.split(".")[0] in values} - {"tls.crt", "tls.key"}
    assert ours - set(walk(values, schema, "")) == set()


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (CHART.parents[2] / "pyproject.toml").read_text()
    assert f'\nversion = "{chart["appVersion"]}"\n' in project
