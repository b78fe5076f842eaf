"""The public keys that the catalog knows."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

from sqlalchemy import create_engine, text

from service.catalog import schema
from service.catalog.audit import add_signer, signers

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_replicas_that_share_a_key_may_begin_at_the_same_time(postgresql_url: str) -> None:
    engine = create_engine(postgresql_url)
    schema.upgrade(engine)
    failed: list[BaseException] = []

    def other() -> None:
        try:
            with engine.begin() as connection:
                add_signer(connection, "40974d073d86f4ae", "PEM", NOW)
                # The transaction goes on.
                assert signers(connection) == {"40974d073d86f4ae": "PEM"}
        except BaseException as error:
            failed.append(error)

    try:
        with engine.connect() as first:
            add_signer(first, "40974d073d86f4ae", "PEM", NOW)
            thread = threading.Thread(target=other)
            thread.start()
            waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            with engine.connect() as looking:
                deadline = time.monotonic() + 120
                while not looking.execute(waiting).scalar():
                    assert time.monotonic() < deadline, "the other one does not wait for the first"
                    looking.rollback()
                    time.sleep(0.02)
            first.commit()
        thread.join(120)
        assert not failed, failed
    finally:
        engine.dispose()
