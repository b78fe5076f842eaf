"""A machine on which the pages can be followed: a bundle, crops, a query, a database server."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.conftest import PostgresqlServer, running_postgresql
from tests.docs.command_lines import environment_twins
from tests.docs.pages import ROOT
from tests.docs.shell import PageShell
from tests.e2e.conftest import jpeg, tiny_bundle_at
from tests.ports import free_port

# The ports that pages speak of.
PORTS = ("7443", "7080", "7090", "7444", "7082", "4318", "9090")


def prepared(root: Path) -> None:
    """What the pages take for granted, where they say that it lies."""
    tiny_bundle_at(root / "srv/resight/bundle", card="# Live\n")
    tiny_bundle_at(root / "srv/resight/next.bundle", height=48, card="# Next\n")
    (root / "runs/tonight").mkdir(parents=True)
    (root / "runs/tonight/bundle").symlink_to(root / "srv/resight/bundle")
    with (root / "crops.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "camera", "capture_time", "track"])
        for number in range(24):
            (root / f"{number}.jpg").write_bytes(jpeg(700 + number))
            camera = ("door", "yard", "gate")[number % 3]
            time = f"2026-04-01T10:{number:02d}:00Z"
            writer.writerow([f"{number}.jpg", camera, time, f"t{number // 3}"])
    (root / "deploy").symlink_to(ROOT / "deploy")
    (root / "query.jpg").write_bytes(jpeg(704))


@contextmanager
def database_server() -> Iterator[PostgresqlServer]:
    """A server as an installation has one: a superuser postgres, and no role of ours."""
    with running_postgresql() as server:
        server.execute("CREATE ROLE postgres SUPERUSER LOGIN")
        engine = create_engine(
            server.url("postgres").replace("resight@", "postgres@"), isolation_level="AUTOCOMMIT"
        )
        try:
            with engine.connect() as connection:
                connection.execute(text("ALTER ROLE resight RENAME TO made_by_the_test"))
        finally:
            engine.dispose()
        yield server


@pytest.fixture
def page_shell(tmp_path: Path) -> Iterator[Callable[..., PageShell]]:
    """``page_shell(database=None)``: a terminal in a prepared folder; its services end with it."""
    opened: list[PageShell] = []

    def make(database: PostgresqlServer | None = None) -> PageShell:
        prepared(tmp_path)
        ports = {port: str(free_port()) for port in PORTS}
        replaced = dict(ports)
        variables = {
            "RESIGHT_GRPC__PORT": ports["7443"],
            "RESIGHT_REST__PORT": ports["7080"],
        }
        target = f"127.0.0.1:{ports['7443']}"
        twins = [name for name in environment_twins() if name.endswith("_TARGET")]
        variables |= dict.fromkeys(twins, target)
        if database is not None:
            sockets = database.url("").partition("host=")[2]
            replaced |= {
                "@db/resight": f"@/resight?host={sockets}",
                "PGHOST=db": f"PGHOST={sockets}",
            }
        programs = () if database is None else (database.programs,)
        shell = PageShell(tmp_path, replaced, variables, programs)
        opened.append(shell)
        return shell

    yield make
    for shell in opened:
        shell.stop_services()
