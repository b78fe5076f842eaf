"""What the chart's values may be, and how those that cannot work are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from tests.deploy.manifests import CHART, RELEASE, Manifest, helm, one, rendered, values_of


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
