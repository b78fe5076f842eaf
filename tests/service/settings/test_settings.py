"""Settings: where values come from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from resight.errors import InvalidArgument
from service.environment import unread_names
from service.settings import ServiceSettings, load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("RESIGHT_"):
            monkeypatch.delenv(name)


def test_arguments_win_over_the_environment_key_by_key(monkeypatch) -> None:
    monkeypatch.setenv("RESIGHT_GRPC__PORT", "1234")
    monkeypatch.setenv("RESIGHT_REST__PORT", "0")
    settings = load_settings({"grpc": {"host": "::1"}, "rest": {"port": 99}})
    assert (settings.grpc.host, settings.grpc.port, settings.rest.port) == ("::1", 1234, 99)


def test_everything_lies_under_the_data_directory(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": tmp_path})
    assert settings.resolved_database_url() == f"sqlite:///{tmp_path}/catalog.sqlite"
    assert settings.resolved_blob_url() == f"file://{tmp_path}/blobs"


def test_secrets_come_from_files_and_are_not_shown(monkeypatch, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://user:hunter2@db/resight\n")
    monkeypatch.setenv("RESIGHT_DATABASE_URL_FILE", str(secret))
    settings = load_settings()
    assert settings.resolved_database_url() == "postgresql://user:hunter2@db/resight"
    assert "hunter2" not in repr(settings) + str(settings.model_dump())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RESIGHT_GRPC__PRT", "1", "grpc knows host"),
        ("RESIGHT_GRCP__PORT", "1", "RESIGHT_GRPC__"),
        ("RESIGHT_GRPC_PORT", "1", "RESIGHT_GRPC__PORT"),
        ("RESIGHT_DATADIR", "1", "RESIGHT_DATA_DIR"),
        ("RESIGHT_DATABASE_ULR_FILE", "1", "RESIGHT_DATABASE_URL_FILE"),
        ("RESIGHT_GRPC", "1", "RESIGHT_GRPC__"),
        (
            "RESIGHT_AUTH__AUTHENTICATION",
            "on",
            r"no such section; .*RESIGHT_ACCESS__AUTHENTICATION",
        ),
        ("RESIGHT_NOTHING__OF_OURS", "on", "no such section; there are access, audit, "),
        ("RESIGHT_ADAPT__X", "1", "no such section"),
        ("RESIGHT_STORE_IMAGES", "false", "RESIGHT_PRIVACY__STORE_IMAGES"),
        ("RESIGHT_REQUIRE_PURPOSE", "true", "RESIGHT_GOVERNANCE__REQUIRE_PURPOSE"),
        ("RESIGHT_TOKEN_FILE", "/token", r"RESIGHT_MILVUS__TOKEN_FILE"),
        ("RESIGHT_PORT", "80", "RESIGHT_GRPC__PORT or RESIGHT_REST__PORT"),
        ("RESIGHT_AUDIT_ENABLED", "false", "RESIGHT_AUDIT__ENABLED"),
        ("RESIGHT_MILVUS__TOKEN", "change-me", r"milvus\.token .*placeholder"),
        ("RESIGHT_GRPC__PORT", "65536", "grpc.port"),
        ("RESIGHT_LIMITS__MAX_TOP_K", "ten", r"limits.max_top_k \(RESIGHT_LIMITS__MAX_TOP_K\)"),
        ("RESIGHT_LIMITS__EARLIEST_CAPTURE_TIME", "1990-01-01T00:00:00", "UTC offset"),
        ("RESIGHT_GRPC__PORT_FILE", "/nowhere/at/all", "cannot read"),
        ("RESIGHT_DRAIN_SECONDS", "nan", "drain_seconds"),
        ("RESIGHT_DRAIN_DELAY_SECONDS", "-1", "drain_delay_seconds"),
        ("RESIGHT_DRAIN_DELAY_SECONDS", "inf", "drain_delay_seconds"),
        ("RESIGHT_BATCHER__MAX_QUEUE_BYTES", "1023", "batcher.max_queue_bytes"),
        ("RESIGHT_BATCHER__MAX_QUEUE_BYTES", "1 GB", "batcher.max_queue_bytes"),
        ("RESIGHT_GRPC__MAX_CONCURRENT_RPCS", "0", "grpc.max_concurrent_rpcs"),
    ],
)
def test_a_wrong_name_or_value_is_named(monkeypatch, name, value, message) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidArgument, match=message):
        load_settings()


@pytest.mark.parametrize(
    "name",
    [
        "RESIGHT_SERVE_GRPC_PORT",
        "RESIGHT_SERVE_BUNDLE",
        "RESIGHT_SHARED",
        "RESIGHT_CA_FILE",
        "RESIGHT_CLIENT_TLS",
        "RESIGHT_API_KEY_FILE",
        "RESIGHT_MODELS_LIST_TARGET",
        "RESIGHT_SEARCH_TOP_K",
    ],
)
def test_names_of_others_are_left_alone(monkeypatch, name) -> None:
    monkeypatch.setenv(name, "1")
    load_settings()
    assert unread_names(ServiceSettings) == (["RESIGHT_SHARED"] if "SHARED" in name else [])


def test_what_kubernetes_tells_of_a_service_of_our_name_is_no_setting(monkeypatch) -> None:
    for name, value in {
        "RESIGHT_PORT": "tcp://10.0.0.1:7443",
        "RESIGHT_SERVICE_HOST": "10.0.0.1",
        "RESIGHT_SERVICE_PORT": "7443",
        "RESIGHT_SERVICE_PORT_GRPC": "7443",
        "RESIGHT_PORT_7443_TCP": "tcp://10.0.0.1:7443",
        "RESIGHT_PORT_7443_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    load_settings()
    assert unread_names(ServiceSettings) == []


def test_a_name_that_nothing_reads_is_told_and_no_other(monkeypatch) -> None:
    for name in ("RESIGHT_DB_URL", "RESIGHT_DATA_DIR", "RESIGHT_DATABASE_URL_FILE"):
        monkeypatch.setenv(name, "x")
    assert unread_names(ServiceSettings) == ["RESIGHT_DB_URL"]


@pytest.mark.parametrize("overrides", [{"colour": 1}, {"grpc": {"colour": 1}}])
def test_unknown_arguments_are_refused(overrides) -> None:
    with pytest.raises(InvalidArgument, match="colour"):
        load_settings(overrides)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])  # noqa: S104
@pytest.mark.parametrize("section", ["grpc", "rest"])
def test_only_loopback_unless_allowed(host, section) -> None:
    with pytest.raises(InvalidArgument, match="allow_insecure_network"):
        load_settings({section: {"host": host}})
    allowed = load_settings({section: {"host": host}, "allow_insecure_network": True})
    assert getattr(allowed, section).host == host


def test_off_loopback_it_is_tls_and_credentials_that_are_needed() -> None:
    files = {"certificate_file": "/tls.crt", "key_file": "/tls.key"}
    everywhere = {"host": "0.0.0.0"}  # noqa: S104
    assert not load_settings().authentication_required
    with pytest.raises(InvalidArgument, match="TLS is not set up"):
        load_settings({"rest": everywhere})
    secured = load_settings({"rest": everywhere, "tls": files})
    assert secured.authentication_required
    with pytest.raises(InvalidArgument, match=r"access\.authentication=off"):
        load_settings({"rest": everywhere, "tls": files, "access": {"authentication": "off"}})
    # A proxy ends TLS: keys are asked for all the same, unless that is said, too.
    behind = {"grpc": everywhere, "allow_insecure_network": True}
    assert load_settings(behind).authentication_required
    opened = load_settings(behind | {"access": {"authentication": "off"}})
    assert not opened.authentication_required
    assert load_settings({"access": {"authentication": "on"}}).authentication_required
    # Where only probes are reachable, they are all that is.
    probes = load_settings({"probes": {"host": "0.0.0.0", "port": 1}})  # noqa: S104
    assert not probes.authentication_required


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        (("127.0.0.1", 7000), ("127.0.0.1", 7000), True),
        (("127.0.0.1", 7000), ("127.0.0.1", 7001), False),
        (("127.0.0.1", 7000), ("127.0.0.2", 7000), False),
        (("0.0.0.0", 7000), ("127.0.0.2", 7000), True),  # noqa: S104
        (("127.0.0.1", 0), ("127.0.0.1", 0), False),
    ],
)
def test_every_listener_has_a_port_of_its_own(one, other, clash) -> None:
    given = {
        "grpc": {"host": one[0], "port": one[1]},
        "probes": {"host": other[0], "port": other[1]},
        "allow_insecure_network": True,
    }
    if not clash:
        load_settings(given)
        return
    with pytest.raises(InvalidArgument, match=r"probes\.port and grpc\.port are both 7000"):
        load_settings(given)


@pytest.mark.parametrize(
    "password", ["change-me", "CHANGEME", "replace_me", "<password>", "${PASSWORD}", "xxxx"]
)
def test_a_placeholder_is_no_password(password) -> None:
    url = f"postgresql://resight:{quote(password, safe='')}@db/resight"
    with pytest.raises(InvalidArgument, match="placeholder") as caught:
        load_settings({"database_url": url})
    assert password not in caught.value.message
    load_settings({"database_url": "postgresql://resight:Xy7-changeme-9@db/resight"})


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_permission(host) -> None:
    assert load_settings({"grpc": {"host": host}}).grpc.host == host


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().data_dir = Path("/")  # type: ignore[misc]
