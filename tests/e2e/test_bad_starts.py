"""Every start that cannot be: one line that names the setting and the fix, and nothing changed.

One site with crops in it is started wrongly in every way there is, and afterwards still has the
same catalog and images, byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, make_url, text

from resight.client.connection import connect
from resight.errors import InvalidArgument
from resight.v1 import gallery_service_pb2 as messages
from service.settings import ServiceSettings, load_settings
from tests.e2e import forked
from tests.faults.small_disk import small_disk
from tests.service.tls.authority import Authority

RESIGHT = Path(sys.executable).with_name("resight")
DAY = 86_400

Environment = dict[str, str]


class Site:
    """A data directory with crops, and ways to start it wrongly."""

    def __init__(self, bundle: Path, data: Path) -> None:
        self.bundle = bundle
        self.data = data

    def digest(self) -> dict[str, str]:
        """Of the catalog, its journal and every image and signing key."""
        kept = ("catalog.sqlite*", "blobs/**/*", "erasures/*", "*.pem", "bundles/**/*")
        files = sorted({path for pattern in kept for path in self.data.glob(pattern)})
        assert any(path.name == "catalog.sqlite" for path in files)
        return {
            str(path.relative_to(self.data)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.is_file() and not path.name.endswith("-shm") and path.stat().st_size
        }

    def refused(self, *options: str, **environment: str) -> str:
        """The one line that a start says."""
        before = self.digest()
        clean = {name: value for name, value in os.environ.items() if name[:8] != "RESIGHT_"}
        command = [
            "serve", "--bundle", str(self.bundle), "--data", str(self.data),
            "--grpc-port", "0", "--rest-port", "0", *options,
        ]  # fmt: skip
        everything = clean | environment
        if forked.fit(everything):
            done = forked.completed(command, everything, timeout=120)
        else:
            done = subprocess.run(
                [RESIGHT, *command],
                capture_output=True, text=True, timeout=120, env=everything, check=False,
            )  # fmt: skip
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert self.digest() == before, "something was changed"
        lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        return lines[0]


@pytest.fixture(scope="module")
def site(
    tiny_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
    start_service: Callable[..., Any],
    make_jpeg: Callable[..., bytes],
) -> Site:
    data = tmp_path_factory.mktemp("bad-starts") / "data"
    with start_service(data) as service:
        with connect(service.grpc) as connection:
            connection.gallery.CreateCamera(
                messages.CreateCameraRequest(gallery="default", camera={"camera_id": "c1"})
            )
            answers = connection.gallery.IngestCrops(
                messages.IngestCropsRequest(
                    sequence=number,
                    gallery="default",
                    crop={"camera_id": "c1", "capture_time": {"seconds": 1_770_000_000 + number}},
                    image=make_jpeg(number),
                )
                for number in range(3)
            )
            assert len(list(answers)) == 3
        assert service.stop() == 0
    return Site(tiny_bundle, data)


@pytest.fixture(scope="module", autouse=True)
def still_there(site: Site, start_service: Callable[..., Any]) -> Iterator[None]:
    """After all of it the service starts and has its crops."""
    yield
    with start_service(site.data) as service:
        assert service.crops == 3


# By section and key, of every section, so that a new one is tried as well.
def sections() -> list[str]:
    return [
        name
        for name, field in ServiceSettings.model_fields.items()
        if isinstance(field.default, BaseModel)
    ]


def test_an_unknown_key_of_each_section() -> None:
    assert len(sections()) > 15
    for section in sections():
        for suffix in ("", "_FILE"):
            name = f"RESIGHT_{section.upper()}__NOT_A_KEY{suffix}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(name, "1")
                with pytest.raises(InvalidArgument, match=f"{name}: no such setting; {section} "):
                    load_settings()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(f"RESIGHT_{section.upper()}", '{"not_a_key": 1}')
            with pytest.raises(InvalidArgument, match=rf"{section}\.not_a_key .*: no such setting"):
                load_settings()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("RESIGHT_AUDIT__NOT_A_KEY", "1", "audit knows anchor_url"),
        ("RESIGHT_DATADIR", "/data", "RESIGHT_DATA_DIR"),
        ("RESIGHT_DATABASE_ULR_FILE", "/run/url", "RESIGHT_DATABASE_URL_FILE"),
        ("RESIGHT_TLS_KEY_FILE", "/key", "RESIGHT_TLS__KEY_FILE"),
        ("RESIGHT_TLSS__KEY_FILE", "/key", "RESIGHT_TLS__"),
        ("RESIGHT_TLS", "on", "RESIGHT_TLS__"),
        ("RESIGHT_DATABASE_URL", "", "RESIGHT_DATABASE_URL"),
        ("RESIGHT_DATABASE_URL", "postgresql://resight:change-me@db/resight", "placeholder"),
        ("RESIGHT_DATABASE_URL_FILE", "/nowhere/url", "correct the path"),
        ("RESIGHT_DATABASE_URL_FILE", "EMPTY", "empty"),
        ("RESIGHT_DATABASE_URL_FILE", "FOLDER", "cannot read"),
        ("RESIGHT_TLS__CERTIFICATE_FILE", "/tls.crt", "RESIGHT_TLS__KEY_FILE"),
        ("RESIGHT_GRPC__HOST", "0.0.0.0", "RESIGHT_TLS__CERTIFICATE_FILE"),  # noqa: S104
        ("RESIGHT_LIMITS__MAX_TOP_K", "many", "limits.max_top_k"),
    ],
)
def test_settings(site: Site, tmp_path: Path, name: str, value: str, told: str) -> None:
    (tmp_path / "empty").write_text("\n")
    value = {"EMPTY": str(tmp_path / "empty"), "FOLDER": str(tmp_path)}.get(value, value)
    line = site.refused(**{name: value})
    assert told in line
    assert name.removesuffix("_FILE") in line or "grpc.host" in line


def test_usage_is_no_fault_of_the_settings(site: Site) -> None:
    done = subprocess.run([RESIGHT, "serve", "--prot", "1"], capture_output=True, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize("which", ["grpc", "rest", "probes"])
def test_a_port_that_is_taken(site: Site, which: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = site.refused(f"--{which}-port", port)
    assert f"{which}.port" in line
    assert port in line
    assert f"--{which}-port" in line


def test_one_port_for_two_listeners(site: Site) -> None:
    line = site.refused("--rest-port", "7999", "--probes-port", "7999")
    assert "probes.port and rest.port are both 7999" in line
    assert "RESIGHT_PROBES__PORT" in line


def test_an_address_of_another_machine(site: Site) -> None:
    line = site.refused("--host", "192.0.2.1", RESIGHT_ALLOW_INSECURE_NETWORK="true")
    assert "grpc.host" in line
    assert "RESIGHT_GRPC__HOST" in line


# Files that settings name.
@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": "GONE"}, "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE"),
        ({"RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": "EMPTY"}, "openssl rand"),
        ({"RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": "PLACEHOLDER"}, "placeholder"),
        (
            {
                "RESIGHT_ACCESS__JWKS_FILE": "GONE",
                "RESIGHT_ACCESS__JWT_ISSUER": "https://issuer",
                "RESIGHT_ACCESS__JWT_AUDIENCE": "resight",
            },
            "RESIGHT_ACCESS__JWKS_FILE",
        ),
        ({"RESIGHT_AUDIT__SIGNING_KEY_FILE": "GONE"}, "audit.signing_key_file"),
        ({"RESIGHT_AUDIT__SIGNING_KEY_FILE": "EMPTY"}, "openssl genpkey"),
        ({"RESIGHT_AUDIT__ANCHOR_URL": "file:///proc/anchors"}, "audit.anchor_url"),
        ({"RESIGHT_AUDIT__ANCHOR_URL": "nowhere://anchors"}, "audit.anchor_url"),
        ({"RESIGHT_BLOB_URL": "file:///proc/blobs"}, "blob_url"),
        ({"RESIGHT_BLOB_URL": "nowhere://blobs"}, "blob_url"),
        # Of a driver that asks its server when it is opened.
        ({"RESIGHT_BLOB_URL": "github://nobody:nothing@main/"}, "blob_url"),
        ({"RESIGHT_ERASURES_DIR": "/proc/erasures"}, "erasures_dir"),
        ({"RESIGHT_INDEX__BACKEND": "milvus"}, "RESIGHT_MILVUS__URI"),
        ({"RESIGHT_TLS__CERTIFICATE_FILE": "EXPIRED", "RESIGHT_TLS__KEY_FILE": "KEY"}, "expired"),
        ({"RESIGHT_TLS__CERTIFICATE_FILE": "GONE", "RESIGHT_TLS__KEY_FILE": "KEY"}, "cannot be"),
    ],
)  # fmt: skip
def test_files_and_places(site: Site, tmp_path: Path, environment: Environment, told: str) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "placeholder").write_text("changeme-0123456789-0123456789-0123456789")
    expired = Authority(tmp_path / "ca").issue(days=-1, ago=9)
    for_names = {
        "GONE": tmp_path / "gone",
        "EMPTY": tmp_path / "empty",
        "PLACEHOLDER": tmp_path / "placeholder",
        "EXPIRED": expired.certificate,
        "KEY": expired.key,
    }
    given = {name: str(for_names.get(value, value)) for name, value in environment.items()}
    assert told in site.refused(**given)


def test_bundles(site: Site, tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in site.refused("--bundle", str(tmp_path / "gone"))
    assert "manifest.json" in site.refused("--bundle", str(tmp_path))
    copy = tmp_path / "bundle"
    shutil.copytree(site.bundle, copy)
    data = bytearray((copy / "encoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "encoder.onnx").write_bytes(bytes(data))
    assert "encoder.onnx" in site.refused("--bundle", str(copy))


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA can be had"
)
def test_a_device_that_is_not_there(site: Site) -> None:
    line = site.refused(RESIGHT_ENCODER__PROVIDER="cuda")
    assert "encoder.provider cannot be used: the onnxruntime that is installed has no CUDA" in line
    assert "RESIGHT_ENCODER__FALLBACK=cpu" in line


def test_another_model_than_the_gallery_has(
    site: Site, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    line = site.refused("--bundle", str(make_bundle(tmp_path / "other")))
    assert "bundle" in line


def test_data_directory(site: Site, tmp_path: Path, start_service: Callable[..., Any]) -> None:
    (tmp_path / "file").write_text("")
    for place in ("/proc/resight", str(tmp_path / "file"), str(tmp_path / "file" / "below")):
        line = site.refused("--data", place)
        assert "data_dir" in line
        assert "--data" in line
    with start_service(tmp_path / "used") as service:
        line = site.refused("--data", str(tmp_path / "used"))
        assert f"in use by process {service.process.pid}" in line


def test_disks(site: Site, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        shutil.copytree(site.data, disk.path / "data")
        there = Site(site.bundle, disk.path / "data")
        disk.fill()
        line = there.refused()
        assert "data_dir" in line
        assert "full" in line
        disk.empty()
        disk.remount("ro")
        line = there.refused()
        assert "data_dir" in line
        assert "Read-only" in line
        disk.remount("rw")


# The database.
def test_database_urls(site: Site, tmp_path: Path) -> None:
    assert "postgresql" in site.refused(RESIGHT_DATABASE_URL="mysql://localhost/resight")
    assert "database_url" in site.refused(RESIGHT_DATABASE_URL="localhost")
    line = site.refused(RESIGHT_DATABASE_URL="postgresql+psycopg://u:secret@127.0.0.1:1/resight")
    assert "database_url: 127.0.0.1:1 does not answer" in line
    assert "RESIGHT_DATABASE_URL" in line
    assert "secret" not in line
    (tmp_path / "text").write_text("This is no database at all, but a letter to the editor.")
    for place in ("text", "gone/catalog.sqlite"):
        line = site.refused(RESIGHT_DATABASE_URL=f"sqlite:///{tmp_path}/{place}")
        assert "database_url" in line
        assert "choose another" in line


def test_postgresql(site: Site, postgresql_server: Any, postgresql_url: str) -> None:
    line = site.refused(RESIGHT_DATABASE_URL=postgresql_url)
    assert "database_url" in line
    assert "resight db upgrade" in line
    missing = make_url(postgresql_url).set(database="nothing_there")
    line = site.refused(RESIGHT_DATABASE_URL=missing.render_as_string(hide_password=False))
    assert "there is no database 'nothing_there'" in line
    assert "createdb" in line
    stranger = make_url(postgresql_url).set(username="stranger", password="hunter2")  # noqa: S106
    line = site.refused(RESIGHT_DATABASE_URL=stranger.render_as_string(hide_password=False))
    assert "does not let this user in" in line
    assert "hunter2" not in line


def test_a_wrong_password(site: Site, own_postgresql: Any) -> None:
    own_postgresql.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    url = make_url(own_postgresql.url("postgres")).set(username="locked", password="wrong")  # noqa: S106
    rules = Path(str(url.query["host"])) / "data" / "pg_hba.conf"
    rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
    own_postgresql.execute("SELECT pg_reload_conf()")
    line = site.refused(RESIGHT_DATABASE_URL=url.render_as_string(hide_password=False))
    assert "password authentication failed" in line
    assert "correct user and password in RESIGHT_DATABASE_URL" in line


def test_a_schema_of_the_future(site: Site, tmp_path: Path, postgresql_url: str) -> None:
    there = Site(site.bundle, tmp_path / "data")
    shutil.copytree(site.data, there.data)
    engine = create_engine(f"sqlite:///{there.data}/catalog.sqlite")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num='9999'"))
        connection.execute(text("UPDATE alembic_version SET compatible_from='9999'"))
    engine.dispose()
    line = there.refused()
    assert "database_url" in line
    assert "newer" in line


def test_clocks(site: Site, shifted: Callable[[float], Environment], tmp_path: Path) -> None:
    """Behind what is stored: refused. Ahead: only where retention would drop everything for it."""
    line = site.refused(**shifted(-2 * DAY))
    assert "clock" in line
    assert "RESIGHT_LIMITS__MAX_CLOCK_SKEW_SECONDS" in line
    ahead = shifted(40 * DAY)
    line = site.refused(**ahead, RESIGHT_RETENTION__DAYS="30")
    assert "retention" in line
    assert "RESIGHT_LIMITS__MAX_CLOCK_SKEW_SECONDS" in line


def test_a_clock_unlike_the_databases(
    site: Site, shifted: Callable[[float], Environment], postgresql_url: str
) -> None:
    there = {"RESIGHT_DATABASE_URL": postgresql_url}
    subprocess.run([RESIGHT, "db", "upgrade"], env=os.environ | there, check=True)
    for days in (-2, 2):
        line = site.refused(**shifted(days * DAY), **there)
        assert "the database's says" in line
        assert "RESIGHT_LIMITS__MAX_CLOCK_SKEW_SECONDS" in line


def test_a_clock_that_is_right_after_all(
    site: Site,
    shifted: Callable[[float], Environment],
    tmp_path: Path,
    start_service: Callable[..., Any],
) -> None:
    """The line says with which setting to start, and with it the service starts."""
    there = Site(site.bundle, tmp_path / "data")
    shutil.copytree(site.data, there.data)
    behind = shifted(-2 * DAY)
    seconds = there.refused(**behind).rsplit(" ", 1)[1]
    with start_service(
        there.data, **behind, RESIGHT_LIMITS__MAX_CLOCK_SKEW_SECONDS=seconds
    ) as service:
        assert service.crops == 3


@pytest.fixture(scope="module")
def shifted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Environment]:
    """The environment of a process whose clock is that many seconds ahead."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("clock")
    source = Path(__file__).parents[1] / "faults" / "clock.c"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", folder / "clock.so", source, "-ldl"], check=True
    )

    def environment(seconds: float) -> Environment:
        hand = folder / f"{seconds}"
        hand.write_text(f"{seconds}")
        return {"LD_PRELOAD": str(folder / "clock.so"), "RESIGHT_TEST_CLOCK": str(hand)}

    return environment
