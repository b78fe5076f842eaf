"""The clock of the database: one for all who use it, whatever their own clocks show."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, Connection, cast, func, type_coerce

from service.catalog.models import Micros

__all__ = ["database_now", "time_of_change"]


def database_now() -> ColumnElement[datetime]:
    """PostgreSQL's clock at the moment at which the expression is evaluated, to a microsecond."""
    micros = func.floor(func.extract("epoch", func.clock_timestamp()) * 1_000_000)
    return type_coerce(cast(micros, BigInteger), Micros)


def time_of_change(connection: Connection, now: datetime) -> ColumnElement[datetime] | datetime:
    """When a change enters the log: by the database's clock where several processes share it, so
    that how far one lags behind another can be told; else ``now``.
    """
    return database_now() if connection.dialect.name == "postgresql" else now
