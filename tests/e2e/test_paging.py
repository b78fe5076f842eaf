"""What whoever is on call learns of a database that is gone, and of an outage beside anchors that
cannot be written: a page each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.e2e.alerting import alerting, eventually, needs_alertmanager
from tests.e2e.conftest import RESIGHT, encoded
from tests.e2e.scraping import needs_prometheus, scraping

pytestmark = [needs_prometheus, needs_alertmanager]

CAUSE = "ResightDatabaseFailing"
CONSEQUENCES = {
    "ResightAuditUnwritable", "ResightAuditFailing", "ResightReplicaHeartbeatFailing",
}  # fmt: skip


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


def test_anchors_that_cannot_be_written_keep_back_no_outage(
    tmp_path: Path, start_service: Any
) -> None:
    """They are somebody's work in the morning, and calls that fail meanwhile wake somebody."""
    anchors = tmp_path / "anchors"
    environment = {
        "RESIGHT_AUDIT__ANCHOR_URL": anchors.as_uri(),
        "RESIGHT_AUDIT__CHECKPOINT_SECONDS": "0.2",
    }
    with ExitStack() as stack:
        service = stack.enter_context(start_service(tmp_path / "data", **environment))
        alertmanager = stack.enter_context(alerting(tmp_path / "alertmanager", wait="1s"))
        prometheus = stack.enter_context(
            scraping(
                tmp_path / "prometheus",
                service.rest,
                faster=20,
                often="1s",
                alertmanager=alertmanager.address,
            )
        )
        gallery = f"http://{service.rest}/v1/galleries/default"

        def are_blocked() -> bool:
            shutil.rmtree(anchors, ignore_errors=True)
            try:
                anchors.write_text("in the way")
            except IsADirectoryError:  # one was written in between
                return False
            return True

        eventually(are_blocked, lambda: anchors)

        def told(receiver: str) -> set[str]:
            return alertmanager.notified.get(receiver, set())

        def seen() -> tuple[object, ...]:
            return dict(alertmanager.notified), prometheus.firing()

        def is_failing() -> bool:
            assert httpx.get(f"{gallery}/stats", timeout=60).status_code == 200
            return all("ResightAuditFailing" in told(name) for name in ("tickets", "privacy"))

        eventually(is_failing, seen, 240)
        # On which the encoder of the tests fails.
        poison = encoded(Image.new("RGB", (64, 128), (255, 255, 255)), "PNG")

        def is_paged() -> bool:
            files = {"image": ("query.png", poison)}
            assert httpx.post(f"{gallery}/search", files=files, timeout=60).status_code == 500
            return "ResightAvailabilityBurnFast" in told("page")

        eventually(is_paged, seen, 240)
        assert "ResightAuditFailing" in prometheus.firing()
        assert "ResightAuditFailing" not in told("page")
