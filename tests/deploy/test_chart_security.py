"""What the chart's pods may do, whom they reach and who reaches them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.manifests import CASES, RELEASE, of_kind, one, pod_specs, rendered

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
