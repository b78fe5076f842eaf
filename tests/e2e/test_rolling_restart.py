"""The chart's Deployment as processes on one PostgreSQL: restarted, upgraded and rolled back, one
replica at a time, while callers who retry nothing go on searching and storing.

Arguments, environment, probes and periods are read from the rendered chart (``tests.deploy.pods``).
"""

from __future__ import annotations

import ssl
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import create_engine, text

from service.catalog import schema
from tests.conftest import PostgresqlServer
from tests.deploy.callers import Callers
from tests.deploy.manifests import ROOT, Manifest, one, rendered
from tests.deploy.pods import Deployment, eventually, run_job, running
from tests.e2e.conftest import RESIGHT, jpeg
from tests.service.tls.authority import Authority, Files

THIS = (str(RESIGHT),)
NEXT = (sys.executable, str(ROOT / "tests" / "deploy" / "next_release.py"))
OURS = schema.head_revision()
# Production, but on this machine: images in a folder.
SETTINGS = (
    "replicas=2", "autoscaling.enabled=false", "images.url=", "images.existingSecret=",
    "images.existingClaim=images", "audit.anchorUrl=", "tracing.endpoint=",
    "drain.delaySeconds=5", "drain.seconds=20",
)  # fmt: skip
PLAIN = ("tls.existingSecret=", "allowInsecureNetwork=true")
ENCRYPTED = ("tls.existingSecret=resight-tls",)
MIGRATION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision, branch_labels, depends_on = {revision!r}, {before!r}, None, None
{mark}
def upgrade():
    op.add_column("crops", sa.Column({column!r}, sa.Integer(), nullable=True))
"""


@dataclass
class Release:
    """A release of the chart with its secrets and claims, and who calls it."""

    manifests: list[Manifest]
    places: dict[str, Path]
    folder: Path
    url: str
    headers: dict[str, str]
    migrations: Path
    ca: Path | None = None

    @contextmanager
    def deployed(self) -> Iterator[tuple[Deployment, Callers]]:
        extra = {"NEXT_MIGRATIONS": str(self.migrations), "OMP_NUM_THREADS": "1"}
        deployment = Deployment(self.manifests, self.places, self.folder, command=THIS, extra=extra)
        with running(deployment):
            self.make_camera(deployment)
            yield deployment, Callers(deployment, jpeg, self.caller(deployment), self.ca)

    def caller(self, deployment: Deployment) -> dict[str, str]:
        """Headers of somebody with a key of their own, which every replica knows."""
        asked = {"display_name": "caller", "scopes": ["search", "ingest"], "galleries": ["default"]}
        admin = self.client(deployment.pods[0].ports["rest"])
        made = admin.post(admin.base_url.join("/v1/keys"), json=asked)
        assert made.status_code == 201, made.text
        headers = self.headers | {"authorization": f"Bearer {made.json()['secret']}"}
        for pod in deployment.pods:
            client = self.client(pod.ports["rest"], headers)
            eventually(partial(knows_the_camera, client), f"{pod.name} knows the caller")
        return headers

    def make_camera(self, deployment: Deployment) -> None:
        for turn, pod in enumerate(deployment.pods):
            client = self.client(pod.ports["rest"])
            if turn == 0:
                assert client.post("/cameras", json={"camera_id": "door"}).status_code == 201
            eventually(partial(knows_the_camera, client), f"{pod.name} knows the camera")

    def client(self, port: int, headers: dict[str, str] | None = None) -> httpx.Client:
        scheme = "http" if self.ca is None else "https"
        return httpx.Client(
            base_url=f"{scheme}://127.0.0.1:{port}/v1/galleries/default",
            headers=headers or self.headers,
            timeout=60,
            verify=True if self.ca is None else ssl.create_default_context(cafile=str(self.ca)),
        )

    def upgrade(self, command: tuple[str, ...]) -> Any:
        """The chart's hook, before an upgrade or a rollback."""
        spec = one(self.manifests, "Job")["spec"]["template"]["spec"]
        return run_job(
            self.manifests, spec, self.places, self.folder / "job", command=command,
            extra={"NEXT_MIGRATIONS": str(self.migrations)},
        )  # fmt: skip

    def write_migrations(self, *kinds: str) -> None:
        before = OURS
        for number, kind in enumerate(kinds, start=1):
            revision = f"9{number:03}"
            mark = f"compatible_from = {OURS!r}" if kind == "compatible" else ""
            (self.migrations / f"v{revision}.py").write_text(
                MIGRATION.format(
                    revision=revision, before=before, mark=mark, column=f"of_{revision}"
                )
            )
            before = revision

    def revision(self) -> Any:
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        finally:
            engine.dispose()


@pytest.fixture
def release(
    postgresql_server: PostgresqlServer, tmp_path: Path, tiny_bundle: Path
) -> Iterator[Release]:
    with released(postgresql_server, tmp_path, tiny_bundle, PLAIN) as made:
        yield made


@pytest.fixture
def release_with_tls(
    postgresql_server: PostgresqlServer, tmp_path: Path, tiny_bundle: Path
) -> Iterator[Release]:
    with released(postgresql_server, tmp_path, tiny_bundle, ENCRYPTED) as made:
        authority = Authority(tmp_path / "authority")
        folder = tmp_path / "secrets" / "tls"
        folder.mkdir()
        authority.issue(to=Files(folder / "tls.crt", folder / "tls.key"))
        (folder / "tls.key").chmod(0o440)
        made.ca = authority.file
        yield made


@contextmanager
def released(
    postgresql_server: PostgresqlServer, tmp_path: Path, tiny_bundle: Path, how: tuple[str, ...]
) -> Iterator[Release]:
    manifests = rendered("production", *SETTINGS, *how)
    key, bundles = token_hex(32), tmp_path / "bundles"
    bundles.mkdir()
    (bundles / "live").symlink_to(tiny_bundle)
    signing = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    with postgresql_server.database() as url:
        files = {
            "database/url": url.encode(), "access/bootstrap-key": key.encode(),
            "audit/signing-key.pem": signing,
        }  # fmt: skip
        for name, content in files.items():
            path = tmp_path / "secrets" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(0o440)
        places = {
            "/bundle": bundles,
            "/tmp": tmp_path / "tmp",
            "/secrets": tmp_path / "secrets",
            "/images": tmp_path / "images",
            "/erasures": tmp_path / "erasures",
        }
        for name in ("tmp", "images", "erasures", "migrations", "pods"):
            (tmp_path / name).mkdir()
        headers = {"authorization": f"Bearer {key}", "resight-purpose": "rolling%20restart"}
        made = Release(manifests, places, tmp_path / "pods", url, headers, tmp_path / "migrations")
        done = made.upgrade(THIS)
        assert done.returncode == 0, done.stderr
        yield made


def knows_the_camera(client: httpx.Client) -> bool:
    return "door" in client.get("/cameras").text


def finds(client: httpx.Client, crops: int) -> bool:
    return bool(client.get("/stats").json()["searchable"] == crops)


def nothing_failed_and_nothing_is_lost(
    release: Release, deployment: Deployment, callers: Callers
) -> None:
    assert callers.failures == []
    assert len(callers.acknowledged) == len(set(callers.acknowledged)) > 50
    for pod in deployment.pods:
        client = release.client(pod.ports["rest"])
        finds_all = partial(finds, client, len(callers.acknowledged))
        eventually(finds_all, f"{pod.name} finds every crop")
        for crop_id in callers.acknowledged[:: max(1, len(callers.acknowledged) // 50)]:
            assert client.get(f"/crops/{crop_id}/image").status_code == 200
    assert [code for _, code in deployment.gone] == [0] * len(deployment.gone)
    assert all(pod.faults == [] for pod in [*deployment.pods, *(p for p, _ in deployment.gone)])


def served(callers: Callers) -> Counter[str]:
    """Requests by pod."""
    by_pod: Counter[str] = Counter()
    for (_, pod), number in callers.sent.items():
        by_pod[pod] += number
    return by_pod


@pytest.mark.slow
def test_both_replicas_are_restarted_and_no_request_fails(release: Release) -> None:
    with release.deployed() as (deployment, callers):
        with callers.calling():
            callers.settle()
            deployment.restart()
            callers.settle()
        assert [pod.name for pod in deployment.pods] == ["pod-3", "pod-4"]
        assert [pod.name for pod, _ in deployment.gone] == ["pod-1", "pod-2"]
        by_pod = served(callers)
        assert min(by_pod[f"pod-{number}"] for number in (1, 2, 3, 4)) > 0, by_pod
        assert {kind for kind, _ in callers.sent} == {
            "search grpc", "search rest", "ingest grpc", "ingest rest",
        }  # fmt: skip
        nothing_failed_and_nothing_is_lost(release, deployment, callers)


@pytest.mark.slow
def test_both_replicas_are_restarted_over_tls_and_no_request_fails(
    release_with_tls: Release,
) -> None:
    release = release_with_tls
    with release.deployed() as (deployment, callers):
        # In plaintext nobody is answered, and who trusts another authority answers nobody.
        port = deployment.pods[0].ports["rest"]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"https://127.0.0.1:{port}/healthz", timeout=60)
        with callers.calling():
            callers.settle()
            deployment.restart()
            callers.settle()
        assert [pod.name for pod in deployment.pods] == ["pod-3", "pod-4"]
        by_pod = served(callers)
        assert min(by_pod[f"pod-{number}"] for number in (1, 2, 3, 4)) > 0, by_pod
        assert len({kind for kind, _ in callers.sent}) == 4
        nothing_failed_and_nothing_is_lost(release, deployment, callers)


@pytest.mark.slow
def test_an_upgrade_with_a_migration_and_the_way_back(release: Release) -> None:
    release.write_migrations("compatible")
    with release.deployed() as (deployment, callers):
        with callers.calling():
            callers.settle(0.5)
            done = release.upgrade(NEXT)
            assert (done.returncode, release.revision()) == (0, "9001"), done.stderr
            # A node is drained in the middle: this version starts on the newer schema, too.
            deployment.replace(deployment.pods[0])
            deployment.use(release.manifests, release.places, NEXT)
            deployment.restart()
            # `helm rollback`: its hook, then pods of this version again.
            done = release.upgrade(THIS)
            assert (done.returncode, release.revision()) == (0, "9001"), done.stderr
            deployment.use(release.manifests, release.places, THIS)
            deployment.replace(deployment.pods[0])
            callers.settle(0.5)
        nothing_failed_and_nothing_is_lost(release, deployment, callers)


@pytest.mark.slow
def test_an_upgrade_that_replicas_could_not_live_with_changes_nothing(release: Release) -> None:
    release.write_migrations("compatible", "breaking")
    with release.deployed() as (deployment, callers):
        with callers.calling():
            callers.settle(0.5)
            done = release.upgrade(NEXT)
            callers.settle(0.5)
        assert (done.returncode, release.revision()) == (1, OURS)
        assert done.stderr.count("\n") == 1
        for words in ("pod-1", "pod-2", "9002", "Stop them"):
            assert words in done.stderr
        nothing_failed_and_nothing_is_lost(release, deployment, callers)
        for pod in list(deployment.pods):
            deployment.remove(pod)
        done = release.upgrade(NEXT)
        assert (done.returncode, release.revision()) == (0, "9002"), done.stderr
        # Now this version is the older one, and is told so, by the hook and at the start.
        done = release.upgrade(THIS)
        assert done.returncode == 1
        assert "needs code of schema 9002" in done.stderr
        late = deployment.start()
        assert late.process.wait(120) == 1
        lines = [line for line in late.log.read_text().splitlines() if line.startswith("error:")]
        assert len(lines) == 1
        assert "needs code of schema 9002" in lines[0]
