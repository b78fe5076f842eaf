"""What an engine promises of its transactions, on both databases."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from service.catalog import engine as engines
from service.catalog.engine import open_engine
from service.catalog.models import galleries

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@contextmanager
def opened(url: str, **told: Any) -> Iterator[Engine]:
    engine = open_engine(url, pool_size=1, **told)
    try:
        yield engine
    finally:
        engine.dispose()


def test_a_reader_sees_one_state_until_it_ends(catalog_url: str) -> None:
    counted = select(func.count()).select_from(galleries)
    with opened(catalog_url, writer=True) as writer, opened(catalog_url, writer=False) as reader:
        with reader.connect() as reading:
            assert reading.execute(counted).scalar_one() == 0
            with writer.begin() as writing:
                writing.execute(insert(galleries).values(name="g", position=0, create_time=NOW))
            assert reading.execute(counted).scalar_one() == 0
        with reader.connect() as reading:
            assert reading.execute(counted).scalar_one() == 1


@pytest.mark.parametrize(
    ("server", "ours"), [("off", "on"), ("on", "on"), ("local", "local"), ("remote_apply",) * 2]
)
def test_postgresql_flushes_what_is_acknowledged(
    postgresql_url: str, server: str, ours: str
) -> None:
    with opened(postgresql_url, writer=True) as engine:
        with engine.begin() as connection:
            database = connection.execute(text("SELECT current_database()")).scalar_one()
            connection.exec_driver_sql(
                f"ALTER DATABASE {database} SET synchronous_commit = {server}"
            )
        engine.dispose()
        with engine.connect() as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == ours
            # Nor does the end of a transaction that failed take it back.
            connection.rollback()
            assert connection.execute(text("SHOW synchronous_commit")).scalar_one() == ours


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://u@127.0.0.1:{silent.getsockname()[1]}/d"
        with (
            opened(url, writer=False) as engine,
            pytest.raises(OperationalError, match="timeout"),
        ):
            engine.connect()


def test_a_server_that_is_cut_off_is_given_up_unless_the_url_says_otherwise(
    postgresql_url: str,
) -> None:
    """Without, what waits for an answer would outlive every drain."""

    def told(url: str) -> tuple[int, ...]:
        with opened(url, writer=False) as engine, engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            parameters = driver.info.get_parameters()
        return tuple(
            int(parameters[name])
            for name in ("tcp_user_timeout", "keepalives_idle", "keepalives_interval",
                         "keepalives_count", "connect_timeout")
        )  # fmt: skip

    milliseconds, idle, interval, count, connect = told(postgresql_url)
    assert 0 < milliseconds <= 20_000
    assert 0 < idle + interval * count <= 30
    assert connect == 10
    longer = make_url(postgresql_url).update_query_dict(
        {"tcp_user_timeout": "90000", "keepalives_count": "7"}
    )
    assert told(longer.render_as_string(hide_password=False)) == (
        90_000,
        idle,
        interval,
        7,
        connect,
    )


def test_the_log_that_a_long_read_let_grow_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 1 << 20
    monkeypatch.setattr(engines, "WAL_BYTES", limit)
    url = f"sqlite:///{tmp_path}/catalog.sqlite"
    log = tmp_path / "catalog.sqlite-wal"
    with opened(url, writer=True) as writer, opened(url, writer=False) as reader:

        def write(megabytes: int) -> None:
            for _ in range(10 * megabytes):
                with writer.begin() as writing:
                    writing.exec_driver_sql("INSERT INTO t VALUES (zeroblob(100000))")

        with writer.begin() as writing:
            writing.exec_driver_sql("CREATE TABLE t (a)")
        with reader.connect() as reading:
            assert reading.exec_driver_sql("SELECT count(*) FROM t").scalar() == 0
            write(8)
            assert log.stat().st_size > 6 * limit
        write(8)
        assert log.stat().st_size < 6 * limit
