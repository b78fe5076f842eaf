"""A database that is gone, as whoever is on call learns of it: one page."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.alerting import alerting, eventually, needs_alertmanager
from tests.e2e.conftest import RESIGHT
from tests.e2e.scraping import needs_prometheus, scraping

pytestmark = [needs_prometheus, needs_alertmanager]

CAUSE = "ResightDatabaseFailing"
CONSEQUENCES = {"ResightAuditFailing", "ResightReplicaHeartbeatFailing"}


def test_a_database_that_is_gone_pages_once(
    tmp_path: Path, own_postgresql: Any, start_service: Any
) -> None:
    """Real service, Prometheus (a minute of the rules is three seconds) and Alertmanager."""
    with ExitStack() as stack:
        url = stack.enter_context(own_postgresql.database())
        environment = {"RESIGHT_DATABASE_URL": url}
        upgrade = [str(RESIGHT), "db", "upgrade"]
        subprocess.run(upgrade, env=os.environ | environment, check=True, timeout=120)
        service = stack.enter_context(start_service(tmp_path / "data", **environment))
        # As much longer than a cause is later than its consequences as in the file.
        alertmanager = stack.enter_context(alerting(tmp_path / "alertmanager", wait="25s"))
        prometheus = stack.enter_context(
            scraping(
                tmp_path / "prometheus",
                service.rest,
                faster=20,
                often="1s",
                alertmanager=alertmanager.address,
            )
        )
        eventually(lambda: prometheus.up() == ["up"], prometheus.up, 120)
        stats = f"http://{service.rest}/v1/galleries/default/stats"
        own_postgresql.stop()
        try:

            def seen() -> set[str]:
                httpx.get(stats, timeout=60)
                return alertmanager.notified.get("page", set())

            eventually(lambda: CAUSE in seen(), lambda: (seen(), prometheus.firing()), 240)
            # They had been firing for longer, and would have been told of before.
            held_back = alertmanager.held_back(job="resight")
            silent = {name.partition("@")[0] for name, is_so in held_back.items() if is_so}
            assert silent >= CONSEQUENCES
            assert prometheus.firing().keys() >= CONSEQUENCES | {CAUSE}
            assert alertmanager.notified["page"] == {CAUSE}
            assert not alertmanager.notified.get("privacy")
        finally:
            own_postgresql.start()
