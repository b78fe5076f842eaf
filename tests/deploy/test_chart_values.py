"""What the chart's values may be, and how those that cannot work are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml
from pydantic import BaseModel

from service.environment import DELIMITER, PREFIX
from service.settings import ServiceSettings
from tests.deploy.manifests import CHART, RELEASE, Manifest, helm, one, rendered, values_of


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["bundle.existingClaim="], "bundle.existingClaim is not set"),
        (["replicas=2"], "SQLite belongs to one process: set database.existingSecret"),
        (["autoscaling.enabled=true"], "SQLite belongs to one process"),
        (["allowInsecureNetwork=false"], "refuses to listen without TLS: set tls.existingSecret"),
        (["database.existingSecret=d"], "archives of models on it would be lost"),
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
        (
            ["settings.RESIGHT_ACCESS__JWKS_URL=https://idp:8443/keys",
             "networkPolicy.identity.enabled=true"],
            "RESIGHT_ACCESS__JWKS_URL is at port 8443",
        ),
        (
            ["database.existingSecret=d", "images.url=s3://a", "erasures.existingClaim=e"],
            "another one after each start: set audit.existingSecret",
        ),
        (["settings.RESIGHT_INDEX__BACKEND=milvus"], "hold no client of Milvus"),
        (["settings.RESIGHT_MILVUS__URI=http://milvus:19530"], "hold no client of Milvus"),
        (["settings.RESIGHT_MILVUS__TOKEN_FILE=/data/t"], "hold no client of Milvus"),
        (["settings.RESIGHT_INDEX__BACKEND=gpu"], "gpu needs a GPU: set gpu.enabled: true"),
        (["settings.RESIGHT_ENCODER__PROVIDER=cuda"], "cuda needs a GPU: set gpu.enabled: true"),
        (["gpu.enabled=true"], "set image.repository: resight/service-gpu"),
        (
            ["gpu.enabled=true", "image.repository=registry.example.org/resight/service-cpu"],
            "nothing in the image registry.example.org/resight/service-cpu uses a GPU",
        ),
        (["audit.anchorUrl=file:///anchors"], "no volume that is kept and written to holds"),
        (["audit.anchorUrl=/anchors"], "holds /anchors: name a bucket"),
        (["audit.anchorUrl=anchors"], "holds anchors: name a bucket"),
        (["audit.anchorUrl=file:///erasures/anchors"], "with erasures.existingClaim"),
        (["audit.anchorUrl=file:///bundle/anchors"], "no volume that is kept and written to"),
        (
            ["database.existingSecret=d", "images.url=s3://a", "erasures.existingClaim=e",
             "audit.existingSecret=s", "audit.anchorUrl=file:///data/anchors"],
            "no volume that is kept and written to",
        ),
        (["images.url=file:///crops"], "for images on a volume set images.existingClaim"),
        (["images.url=/crops"], "is no object store"),
        (
            ["settings.RESIGHT_ACCESS__JWKS_FILE=/etc/keys.json"],
            "no volume of the pods holds /etc/keys.json (they have /bundle, /data)",
        ),
        (["settings.RESIGHT_API_KEY=rsk_1_2"], "is a secret, and settings lie open"),
        (["images.url=s3://key:secret@bucket/a"], "images.url holds a password"),
        (["audit.anchorUrl=s3://key:secret@bucket/a"], "audit.anchorUrl holds a password"),
        (["tracing.endpoint=http://a:b@c:4318"], "tracing.endpoint holds a password"),
        (
            ["settings.RESIGHT_ACCESS__JWKS_URL=https://a:b@idp/keys"],
            "settings.RESIGHT_ACCESS__JWKS_URL holds a password",
        ),
        (["fullnameOverride=Bad_Name"], 'Bad_Name" is no name that a Service can have'),
        (["fullnameOverride=1site"], "a letter first): set fullnameOverride"),
        (["nameOverride=Bad_Name"], "set nameOverride"),
        (["database.existingSecret=Bad_Secret"], "'Bad_Secret' does not match pattern"),
        (["bundle.existingClaim=Bad_Claim"], "'Bad_Claim' does not match pattern"),
        (["audit.signingKey=../key"], "'../key' does not match pattern"),
        ([r"podLabels.app\.kubernetes\.io/component=x"], "component is the chart's own"),
        ([r"podLabels.app\.kubernetes\.io/name=x"], "name is the chart's own"),
        (["podLabels.team=a b"], "'a b' does not match pattern"),
        (["podAnnotations.checksum/settings=x"], "checksum/settings is the chart's own"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_words(settings: list[str], message: str) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    done = helm("template", RELEASE, str(CHART), "--values", str(values_of("single")), *options)
    assert done.returncode != 0
    assert done.stdout == ""
    assert message in done.stderr, done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        ["audit.anchorUrl=file:///data/anchors"],
        ["erasures.existingClaim=e", "audit.anchorUrl=/erasures/anchors"],
        ["audit.anchorUrl=s3://bucket/anchors"],
        ["images.url=s3://bucket@version"],
        ["tls.existingSecret=t", "settings.RESIGHT_ACCESS__JWKS_FILE=/secrets/tls/keys.json"],
        ["gpu.enabled=true", "image.repository=resight/service-gpu",
         "settings.RESIGHT_ENCODER__PROVIDER=cuda"],
        ["database.existingSecret=d", "data.existingClaim=c"],
        ["podLabels.team=night", "podAnnotations.note=a b"],
    ],
)  # fmt: skip
def test_what_can_work_is_not_refused(settings: list[str]) -> None:
    assert one(rendered("single", *settings), "Deployment")


def test_without_images_replicas_still_need_a_place_for_the_archives_of_models() -> None:
    """A model that one registers another must be able to stage, after any rollout."""
    given = [
        "--set", "database.existingSecret=d,erasures.existingClaim=e,audit.existingSecret=s",
        "--set-string", "settings.RESIGHT_PRIVACY__STORE_IMAGES=false",
    ]  # fmt: skip
    for replicas in (1, 2):
        site = [*given, "--set", f"replicas={replicas}"]
        template = ["template", RELEASE, str(CHART), "--values", str(values_of("single"))]
        done = helm(*template, *site)
        assert done.returncode != 0
        assert "archives of models" in done.stderr
        done = helm(*template, *site, "--set", "images.url=s3://bucket/resight")
        assert done.returncode == 0, done.stderr
        manifests = [each for each in yaml.safe_load_all(done.stdout) if each]
        assert one(manifests, "ConfigMap")["data"]["RESIGHT_BLOB_URL"] == "s3://bucket/resight"


def test_no_secret_can_be_given_as_a_plain_setting() -> None:
    for name in secret_settings(ServiceSettings, PREFIX):
        given = f"settings.{name}=a-secret"
        done = helm(
            "template", RELEASE, str(CHART), "--values", str(values_of("single")), "--set", given
        )
        assert done.returncode != 0, name
        assert f"settings.{name}" in done.stderr


def secret_settings(model: type[BaseModel], prefix: str) -> list[str]:
    """Environment names of the settings whose values are never shown."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            found += secret_settings(type(field.default), f"{prefix}{name.upper()}{DELIMITER}")
        elif "SecretStr" in str(field.annotation):
            found.append(f"{prefix}{name.upper()}")
    return found


def test_names_are_no_longer_than_kubernetes_takes() -> None:
    release = "a" * 53
    done = helm("template", release, str(CHART), "--values", str(values_of("production")))
    assert done.returncode == 0, done.stderr
    for each in yaml.safe_load_all(done.stdout):
        longest = 52 if each["kind"] == "CronJob" else 63
        assert len(each["metadata"]["name"]) <= longest, each["metadata"]["name"]


def test_the_defaults_say_what_is_missing() -> None:
    done = helm("template", RELEASE, str(CHART))
    assert done.returncode != 0
    assert "bundle.existingClaim is not set" in done.stderr


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
